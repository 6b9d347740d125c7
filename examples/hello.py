"""The main job: run a Python program in a fresh container made of the host's own files, and see what became of it."""

from sandboxkit import Sandbox

PROGRAM = "import os; print(6 * 7, 'computed on', os.uname().nodename, 'as pid', os.getpid())"

with Sandbox() as sb:
    result = sb.run(["python3", "-c", PROGRAM], timeout=10, text=True)
    print(result.stdout, end="")
    usage = result.usage
    print(f"{result.reason.value}: cpu {usage.cpu_time:.3f} s, peak memory {usage.memory_peak:,} bytes")
    result.check()
    endless = sb.run(["python3", "-c", "while True: pass"], timeout=0.5)
    print(f"an endless loop: {endless.reason.value}, return code {endless.returncode}")
