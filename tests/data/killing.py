"""Killing a program that fills a split, while it works at its last shard."""

import subprocess
import sys
import time

HERE = "here"


def stop_here():
    """Called by a worker process of the program: says so and stops for ever."""
    print(HERE, flush=True)
    time.sleep(600)


def kill_when_stopped(script, *arguments):
    """Runs a Python script until it calls `stop_here`, then kills it (-9).

    Returns once its worker processes are gone too: they hold its standard output.
    """
    with subprocess.Popen([sys.executable, script, *arguments], stdout=subprocess.PIPE, text=True) as process:
        try:
            said = process.stdout.readline()
        finally:
            process.kill()
        process.stdout.read()
    assert said == f"{HERE}\n"
