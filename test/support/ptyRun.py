"""Runs a command on a pseudo-terminal: sends keys when it has said something, then tells how the terminal was left.

usage: ptyRun.py STEPS COMMAND...   STEPS: JSON list of [text to wait for, keys to send]
"""
import json, os, pty, select, sys, termios, time

steps, command = json.loads(sys.argv[1]), sys.argv[2:]
master, slave = pty.openpty()
before = termios.tcgetattr(slave)
pid = os.fork()
if pid == 0:
    os.login_tty(slave) if hasattr(os, "login_tty") else (os.setsid(), [os.dup2(slave, n) for n in (0, 1, 2)])
    os.execvp(command[0], command)

seen, raw, deadline = b"", False, time.time() + 240
while time.time() < deadline:
    ready, _, _ = select.select([master], [], [], 0.2)
    if ready:
        try:
            seen += os.read(master, 65536)
        except OSError:
            break
    if steps and steps[0][0].encode() in seen:
        raw = raw or not termios.tcgetattr(slave)[3] & termios.ICANON
        seen = seen.split(steps[0][0].encode(), 1)[1]
        os.write(master, steps.pop(0)[1].encode())
    done, status = os.waitpid(pid, os.WNOHANG)
    if done == pid:
        time.sleep(0.2)
        while select.select([master], [], [], 0.1)[0]:
            seen += os.read(master, 65536)
        print(json.dumps({"status": os.waitstatus_to_exitcode(status), "raw": raw, "restored": termios.tcgetattr(slave) == before, "left": len(steps), "tail": seen.decode(errors="replace")}))
        sys.exit(0)
os.kill(pid, 9)
print(json.dumps({"status": None, "raw": raw, "restored": False, "left": len(steps), "tail": seen.decode(errors="replace")}))
