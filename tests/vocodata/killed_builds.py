"""Builds that are killed and run again; a program of its own, so that it may fork and kill.

    python killed_builds.py moments MANIFEST OUT KILLS SEED    SIGKILL at random moments
    python killed_builds.py steps MANIFEST OUT                 SIGKILL at each write in turn
    python killed_builds.py workers MANIFEST OUT               SIGKILL the build, then a worker
    python killed_builds.py full MANIFEST OUT                  no room from each write on, in turn

Each ends with a build that is left alone, and prints as JSON how many were killed.
"""

import errno
import json
import os
import pathlib
import random
import shutil
import signal
import sys
import time
import traceback

from vocodata.building import build
from vocodata.errors import DiskFullError


def _in_child(action):
    """Fork and run; the parent imported everything once. Gives the child's process id."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            action()
            status = 0
        except Exception:  # the parent needs to hear of it, and must not go on in the child
            traceback.print_exc()
        finally:
            os._exit(status)
    return pid


def _killed(pid):
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0, "a build failed"
    return False


def _contents(folder):
    files = sorted(path for path in pathlib.Path(folder).rglob("*") if path.is_file())
    return {path.relative_to(folder): path.read_bytes() for path in files}


def moments(manifest, out, kills, seed):
    """Kill at moments drawn anew; a store that got finished is compared, and begun afresh."""
    moment = random.Random(seed)
    # Here, not in a child: what is compiled now need not be loaded by every child.
    whole = build(manifest, f"{out}.whole", workers=0)
    began = time.perf_counter()
    build(manifest, f"{out}.whole", workers=0, overwrite=True)
    whole_s = time.perf_counter() - began
    killed = finished = 0
    while True:
        pid = _in_child(lambda: build(manifest, out, workers=0, resume=True))
        if killed < kills:
            time.sleep(moment.uniform(0, whole_s))
            os.kill(pid, signal.SIGKILL)
        if _killed(pid):
            killed += 1
            continue
        finished += 1
        assert _contents(out) == _contents(whole.store)
        if killed == kills:
            return {"killed": killed, "finished": finished}
        shutil.rmtree(out)


def _die_at(step):
    """Let this process be killed just before its `step`-th flush or rename."""
    left = [step]

    def counted(real):
        def call(*arguments):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments)

        return call

    os.fsync = counted(os.fsync)
    pathlib.Path.replace = counted(pathlib.Path.replace)


def steps(manifest, out):
    """Each run dies one step later than the one before, on what that one left behind."""
    build(manifest, f"{out}.whole", workers=0)
    for step in range(1, 10_000):

        def dying(step=step):
            _die_at(step)
            build(manifest, out, workers=0, resume=True)

        if not _killed(_in_child(dying)):
            return {"killed": step - 1}
    raise AssertionError


def _full_from(step):
    """Let the disk be full from this process's `step`-th write on: folders, files, renames."""
    left = [step]

    def counted(real):
        def call(*arguments, **options):
            left[0] -= 1
            if left[0] <= 0:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return real(*arguments, **options)

        return call

    os.fsync = counted(os.fsync)
    pathlib.Path.replace = counted(pathlib.Path.replace)
    pathlib.Path.mkdir = counted(pathlib.Path.mkdir)


def full(manifest, out):
    """Each run finds no room one write later; each must say so, and leave nothing half-written."""
    build(manifest, f"{out}.whole", workers=0)
    for step in range(1, 10_000):

        def filling(step=step):
            _full_from(step)
            try:
                build(manifest, out, workers=0, resume=True)
            except DiskFullError as error:
                told, half = error.detail, list(pathlib.Path(out).rglob("*.tmp-*"))
            else:
                return
            assert "Free space or give another --out" in told
            assert not half
            os.kill(os.getpid(), signal.SIGKILL)

        if not _killed(_in_child(filling)):
            return {"killed": step - 1}
    raise AssertionError


def _children_of(pid):
    """Worker processes that a build has started."""
    tasks = pathlib.Path(f"/proc/{pid}/task").glob("*/children")
    children = [int(child) for task in tasks for child in task.read_text().split()]
    return [
        child
        for child in children
        if b"spawn_main" in pathlib.Path(f"/proc/{child}/cmdline").read_bytes()
    ]


def workers(manifest, out):
    """Kill a Dask build after its first scan, then one worker of the build that goes on."""

    def die(event):
        if event.kind == "stored":
            os.kill(os.getpid(), signal.SIGKILL)

    first = _killed(_in_child(lambda: build(manifest, out, workers=1, on_event=die)))
    deaths = []

    def kill_worker(event):
        if event.kind == "stored" and not deaths:
            deaths.extend(_children_of(os.getpid())[:1])
            os.kill(deaths[0], signal.SIGKILL)

    report = build(manifest, out, workers=2, resume=True, on_event=kill_worker)
    return {"killed": int(first) + len(deaths), "excluded": report.excluded}


if __name__ == "__main__":
    mode, manifest_path, out_path, *numbers = sys.argv[1:]
    modes = {"moments": moments, "steps": steps, "workers": workers, "full": full}
    result = modes[mode](manifest_path, out_path, *map(int, numbers))
    sys.stdout.write(json.dumps(result))
