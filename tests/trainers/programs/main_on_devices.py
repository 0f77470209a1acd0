"""Run trainers.mm on several logical CPU devices: python main_on_devices.py NUM_DEVICES FLAGS..."""

import sys

import tensorflow as tf
from absl import app

from trainers import mm

if __name__ == "__main__":
    cpu = tf.config.list_physical_devices("CPU")[0]
    devices = [tf.config.LogicalDeviceConfiguration()] * int(sys.argv.pop(1))
    tf.config.set_logical_device_configuration(cpu, devices)
    app.run(mm.main)
