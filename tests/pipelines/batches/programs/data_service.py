"""A dispatcher or a worker of a tf.data service, until it is killed.

python data_service.py PORT                    (dispatcher)
python data_service.py PORT DISPATCHER_PORT    (worker)
"""

import sys

import tensorflow as tf

service = tf.data.experimental.service


def main(port, dispatcher=None):
    if dispatcher is None:
        server = service.DispatchServer(service.DispatcherConfig(port=port, worker_timeout_ms=5000))
    else:
        config = service.WorkerConfig(f"localhost:{dispatcher}", f"localhost:{port}", port)
        server = service.WorkerServer(config)
    print("ready", flush=True)
    server.join()


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
