/*
 * fork and exec with a clean child; see spawn.h. Owns nothing. Between fork and exec only system calls are
 * made: other threads may have held any lock of the library at the moment of the fork.
 */
#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdbool.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "cleanup.h"

static void child_signals(void)
{
	struct sigaction dfl = {.sa_handler = SIG_DFL};
	for (int sig = 1; sig <= SIGRTMAX; sig++)
		sigaction(sig, &dfl, NULL); /* KILL, STOP and the library's own refuse, as they may */
	sigset_t none;
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static int child_limits(const struct spawn *s)
{
	struct rlimit none = {0, 0}, limit;
	if (setrlimit(RLIMIT_CORE, &none) < 0 || setrlimit(RLIMIT_NOFILE, &s->files) < 0)
		return -errno;
	if (!s->processes)
		return 0;
	if (getrlimit(RLIMIT_NPROC, &limit) < 0)
		return -errno;
	if (limit.rlim_max > s->processes)
		limit.rlim_max = s->processes;
	limit.rlim_cur = limit.rlim_max;
	return setrlimit(RLIMIT_NPROC, &limit) < 0 ? -errno : 0;
}

/* Returns only on failure: negative before the exec, positive from it. */
static int child_become(const struct spawn *s)
{
	if (setsid() < 0)
		return -errno;
	if (s->terminal && ioctl(s->in, TIOCSCTTY, 0) < 0)
		return -errno;
	/* EINVAL: as in main.c. */
	if (s->adopts && prctl(PR_SET_CHILD_SUBREAPER, 1L) < 0 && errno != EINVAL)
		return -errno;
	if (dup2(s->in, 0) < 0 || dup2(s->out, 1) < 0 || dup2(s->err, 2) < 0)
		return -errno;
	/* All are opened close-on-exec; this is for one that a library forgot. */
	syscall(SYS_close_range, 3u, ~0u, CLOSE_RANGE_CLOEXEC);
	umask(022);
	if (chdir(s->cwd) < 0)
		return -errno;
	int err = child_limits(s);
	if (err < 0)
		return err;
	child_signals();
	execve(s->argv[0], (char *const *)s->argv, (char *const *)s->env);
	return errno;
}

int spawn_fork(const struct spawn *s, pid_t *pid, int *status)
{
	int ends[2];
	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	/* Signals wait until the child has default handlers. */
	sigset_t all, before;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	pid_t child = fork();
	if (child == 0) {
		int err = child_become(s);
		ssize_t n = write(ends[1], &err, sizeof err);
		_exit(n == sizeof err ? 127 : 126);
	}
	int err = child < 0 ? -errno : 0;
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	close(ends[1]);
	if (err < 0) {
		close(ends[0]);
		return err;
	}
	*pid = child;
	*status = ends[0];
	return 0;
}

int spawn_outcome(int status)
{
	AUTO_FD int fd = status;
	int err = 0;
	ssize_t n;
	do
		n = read(fd, &err, sizeof err);
	while (n < 0 && errno == EINTR);
	if (n < 0)
		return -errno;
	return n == sizeof err ? err : 0;
}
