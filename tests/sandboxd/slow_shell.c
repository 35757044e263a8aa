/*
 * Loaded into shells: now and then it makes them wait a moment behind what changes how they take SIGINT, behind reading words and behind
 * answering, so that interrupts come there. With SLOW_SHELL_MS in the environment bash waits so long whenever it has a child and is about to
 * wait for it.
 */
#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int is_shell(void)
{
	static const char *const names[] = {"bash", "dash", "sh"};
	static int known = -1;
	for (size_t i = 0; known < 0 && i < sizeof names / sizeof *names; i++)
		if (strcmp(program_invocation_short_name, names[i]) == 0)
			known = 1;
	known = known > 0;
	return known;
}

static void dawdle(void)
{
	static unsigned seed;
	if (!is_shell() || getenv("SLOW_SHELL_MS"))
		return;
	int error = errno;
	seed = (seed ? seed : (unsigned)getpid()) * 1103515245u + 12345u;
	struct timespec t = {0, (seed >> 8) % 4000 * 1000L};
	if ((seed >> 16) % 4 == 0)
		nanosleep(&t, NULL);
	errno = error;
}

/* True: the environment says how slow it is. */
static int dawdle_before_wait(int sig, const struct sigaction *new)
{
	const char *ms = getenv("SLOW_SHELL_MS");
	sigset_t blocked;
	if (!ms)
		return 0;
	sigprocmask(SIG_SETMASK, NULL, &blocked);
	if (sig != SIGINT || !new || new->sa_handler == SIG_DFL || new->sa_handler == SIG_IGN ||
		!sigismember(&blocked, SIGCHLD) || strcmp(program_invocation_short_name, "bash") != 0)
		return 1;
	struct timespec t = {atol(ms) / 1000, atol(ms) % 1000 * 1000000};
	while (nanosleep(&t, &t) < 0 && errno == EINTR)
		continue;
	return 1;
}

int sigaction(int sig, const struct sigaction *new, struct sigaction *old)
{
	int (*next)(int, const struct sigaction *, struct sigaction *) = dlsym(RTLD_NEXT, "sigaction");
	int err = next(sig, new, old);
	if (!dawdle_before_wait(sig, new) && sig == SIGINT && new)
		dawdle();
	return err;
}

ssize_t read(int fd, void *to, size_t size)
{
	ssize_t (*next)(int, void *, size_t) = dlsym(RTLD_NEXT, "read");
	ssize_t n = next(fd, to, size);
	if (fd == 0)
		dawdle();
	return n;
}

ssize_t write(int fd, const void *from, size_t size)
{
	ssize_t (*next)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
	ssize_t n = next(fd, from, size);
	if (fd == 1)
		dawdle();
	return n;
}
