/*
 * -o auto_unmount (mount.h): a process of its own that lives as long as this one and takes a mount away whose program has died.
 *
 * It is not libfuse's, which looks once, when the program's socket closes: of a program that is killed the kernel closes that
 * before it ends the mount's connection, so that the look may come too early, and the mount stays (one in seventy, measured).
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "call.h"
#include "cleanup.h"
#include "mount.h"
#include "mount_table.h"

enum { LOOK_MS = 20, LOOK_FOR_MS = 10000 };

/* Whoever serves it (this program's end, or the next one with its device number) is not asked: it may be stuck. */
static bool is_served(const struct mount_entry *e)
{
	pid_t pid;
	AUTO_FD int program = mount_program(e, &pid);
	return program >= 0;
}

/* The program has ended: what is left of its mount goes. */
static void take_away(const char *mountpoint, const struct mount_entry *made)
{
	struct mount_entry e;
	for (int64_t until = call_now_ms() + LOOK_FOR_MS; call_now_ms() < until;) {
		if (!mount_find(mountpoint, &e) || strcmp(e.device, made->device) != 0)
			return;
		if (!is_served(&e) && mount_is_dead(mountpoint))
			(void)mount_detach(mountpoint, true); /* looked at again */
		nanosleep(&(struct timespec){0, LOOK_MS * 1000000}, NULL);
	}
}

/* True: the program says that it has mounted; false: it has ended. */
static bool hear(int lifeline)
{
	char byte;
	ssize_t n;
	while ((n = read(lifeline, &byte, 1)) < 0 && errno == EINTR)
		;
	return n == 1;
}

static void watch(const char *mountpoint, int lifeline)
{
	static const int signals[] = {SIGHUP, SIGINT, SIGTERM, SIGPIPE};
	struct mount_entry made;
	for (size_t i = 0; i < sizeof signals / sizeof *signals; i++)
		(void)signal(signals[i], SIG_IGN); /* it ends with the program */
	(void)setsid();
	(void)chdir("/");
	(void)prctl(PR_SET_NAME, "auto_unmount");
	int null = open("/dev/null", O_RDWR);
	/* Whoever reads to the end of what the program prints is not to wait for this one. */
	for (int fd = 0; fd < 3; fd++)
		(void)dup2(null, fd);
	if (dup2(lifeline, 3) < 0 || close_range(4, ~0U, 0) < 0)
		return;
	if (hear(3) && mount_find(mountpoint, &made)) {
		while (hear(3))
			;
		take_away(mountpoint, &made);
	}
}

int mount_watch(const char *mountpoint, int *lifeline)
{
	int ends[2];
	if (pipe2(ends, O_CLOEXEC) < 0)
		return -errno;
	pid_t pid = fork();
	if (pid == 0) {
		watch(mountpoint, ends[0]);
		_exit(0);
	}
	int err = pid < 0 ? -errno : 0;
	close(ends[0]);
	if (err)
		close(ends[1]);
	else
		*lifeline = ends[1];
	return err;
}

void mount_watch_begin(int lifeline)
{
	while (write(lifeline, "1", 1) < 0 && errno == EINTR)
		;
}
