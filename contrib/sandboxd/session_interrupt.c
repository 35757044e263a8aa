/*
 * The SIGINT for a session's shell, at a moment when it does no harm; see session_internal.h.
 *
 * A bash without job control that begins to wait for a child installs its handler and only then notes that it waits. An INT just
 * then makes the handler send it again to its own shell, which gets it, and so on for ever: not even the next INT helps. bash has SIGCHLD
 * blocked from before that moment until the child is reaped, so a shell that is stopped with SIGCHLD blocked and not in wait4 may be at that
 * moment. (Seen with bash 5.2: strace shows kill(self, SIGINT) without end.) An INT that comes when the child has just ended by itself
 * is lost, since bash believes that the child has dealt with it: that is no moment for it either.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "session_internal.h"
#include "text.h"

enum { STOP_WAIT_MS = 50, TRIES = 8 };

static bool read_proc(pid_t pid, const char *name, char *to, size_t size)
{
	char path[64];
	snprintf(path, sizeof path, "/proc/%d/%s", (int)pid, name);
	AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, to, size - 1);
	to[n > 0 ? n : 0] = '\0';
	return n > 0;
}

/* A child that lives, and was not there before the command. */
static bool has_child(const struct session *s)
{
	AUTO_FREE struct proc_name *names = NULL;
	ssize_t count = proc_children(s->shell.pid, &names);
	for (ssize_t i = 0; i < count; i++) {
		size_t at = 0;
		while (at < s->older_count &&
			   (s->older[at].pid != names[i].pid || s->older[at].start != names[i].start))
			at++;
		if (at == s->older_count)
			return true;
	}
	return count < 0;
}

/* Of a shell that is stopped. One that cannot be looked at is fine: nothing is known against it. */
static bool is_fine_moment(const struct session *s)
{
	char text[4096];
	static const char blocked[] = "\nSigBlk:";
	bool read = read_proc(s->shell.pid, "status", text, sizeof text);
	const char *at = read ? strstr(text, blocked) : NULL;
	if (!at || !(strtoull(at + strlen(blocked), NULL, 16) & (1ull << (SIGCHLD - 1))))
		return true;
	if (!read_proc(s->shell.pid, "syscall", text, sizeof text))
		return true;
	return strtol(text, NULL, 10) == SYS_wait4 && has_child(s);
}

/* Stops it. False: it has ended, or does not stop (it waits for a disk). */
static bool stop_shell(pid_t pid)
{
	int64_t deadline = text_monotonic_ms() + STOP_WAIT_MS;
	kill(pid, SIGSTOP);
	for (;;) {
		siginfo_t info = {0};
		/* What is seen stays for the reaper. There is nothing to poll for a stop, and a shell stops at once. */
		if (waitid(P_PID, (id_t)pid, &info, WSTOPPED | WEXITED | WNOWAIT | WNOHANG) < 0)
			return false;
		if (info.si_pid)
			return info.si_code == CLD_STOPPED;
		if (text_monotonic_ms() >= deadline)
			return false;
		nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
	}
}

bool session_interrupt_shell(struct session *s)
{
	pid_t pid = s->shell.pid;
	for (int i = 0; i < TRIES; i++) {
		bool good = stop_shell(pid) && is_fine_moment(s);
		if (good)
			kill(-pid, SIGINT);
		kill(pid, SIGCONT);
		if (good)
			return true;
	}
	return false;
}
