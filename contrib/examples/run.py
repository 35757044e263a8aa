"""usage: run.py SANDBOX"""
import os
import sys

sandbox = sys.argv[1]
with open(f"{sandbox}/workspace/job.sh", "w") as f:
    f.write('echo "working in $(pwd)"\nexit 3\n')

fd = os.open(f"{sandbox}/ctl/exec", os.O_RDWR)
run = os.read(fd, 100).decode().strip()
os.write(fd, b"sh job.sh\n")
while output := os.read(fd, 65536):  # as it comes; empty at its end
    sys.stdout.buffer.write(output)
    sys.stdout.flush()
with open(f"{sandbox}/ctl/runs/{run}/exit") as f:
    code = f.read().strip()
os.close(fd)
sys.exit(int(code) if code.isdigit() else f"the end of the run is {code}")
