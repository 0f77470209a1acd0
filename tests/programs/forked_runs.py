"""Run commands of trainers.mm in forked processes: TensorFlow is imported only once.

Each line of the standard input is a JSON object, and each line of the standard output its answer:

    {"arguments": [...], "log": FILE, "environment": {...}}  ->  {"pid": PID}
    {"poll": PID}                                            ->  {"status": exit status or null}

Further keys of a command: "folder" is the working directory; "watched" lists the folders whose
changes are counted; "count" names the file that gets their number at the end; "kill" [K, SECONDS]
kills the process this long after the K-th of them; "powerless" takes root's right to ignore
permissions. The status of a killed process is negative.
"""

import ctypes
import json
import os
import pathlib
import runpy
import signal
import sys

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir"}


def main():
    from trainers import experiment  # imports TensorFlow without starting it
    from trainers.stages import doctor, evaluate, export, mm, predict, proxy, segment

    del experiment, doctor, evaluate, export, mm, predict, proxy, segment
    print(json.dumps({"ready": os.getpid()}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        answer = poll(request["poll"]) if "poll" in request else start(request)
        print(json.dumps(answer), flush=True)


def poll(pid):
    found, status = os.waitpid(pid, os.WNOHANG)
    return {"status": os.waitstatus_to_exitcode(status) if found else None}


def start(request):
    pid = os.fork()
    if pid == 0:
        run(request)
    return {"pid": pid}


def run(request):
    """Run one command in this process, and exit."""
    log = os.open(request["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(log, 1)
    os.dup2(log, 2)
    if request.get("powerless"):
        drop_capabilities()
    os.environ.update(request["environment"])
    os.chdir(request.get("folder", "."))
    sys.argv = ["trainers.mm", *request["arguments"]]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in a shell's background
    changes = Changes(request.get("watched", ()), *request.get("kill", (0, 0)))
    sys.addaudithook(changes)
    try:
        runpy.run_module("trainers.mm", run_name="__main__", alter_sys=True)
        sys.exit(0)
    finally:
        if "count" in request:
            pathlib.Path(request["count"]).write_text(str(changes.number))


def drop_capabilities():
    """Give up all capabilities of root (capset(2) with version 3 and three empty sets)."""
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    if libc.capset(header, (ctypes.c_uint32 * 6)()):
        raise OSError(ctypes.get_errno(), "capset")


class Changes:
    """Count the changes of watched folders by Python, and kill the process after the K-th one.

    The default action of SIGALRM ends the process at once, also within TensorFlow, and no Python
    code runs any more.
    """

    def __init__(self, folders, kill_after, seconds):
        self.folders, self.kill_after, self.seconds = tuple(folders), kill_after, seconds
        self.number = 0

    def __call__(self, event, arguments):
        if event not in CHANGES and not (event == "open" and is_writing(*arguments[1:])):
            return
        if not isinstance(arguments[0], str | bytes | os.PathLike):
            return
        if not os.fsdecode(arguments[0]).startswith(self.folders):
            return
        self.number += 1
        if self.number == self.kill_after:
            if not self.seconds:
                os.kill(os.getpid(), signal.SIGKILL)
            signal.setitimer(signal.ITIMER_REAL, self.seconds)


def is_writing(mode, flags):
    if isinstance(mode, str):
        return bool(set(mode) & set("wax+"))
    return bool((flags or 0) & (os.O_WRONLY | os.O_RDWR))


if __name__ == "__main__":
    main()
