"""Commands, stages and the loop. This package sets variables that TensorFlow reads at import."""

import os

SHOWS_LOGS = "TF_CPP_MIN_LOG_LEVEL" in os.environ
"""Whether the user asked for a level of TensorFlow's log lines."""

# oneDNN is worth 1.2 x on VGG-16 steps on CPUs where TensorFlow leaves it off by default.
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
