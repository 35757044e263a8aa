/*
 * sandboxfs -u (mount.h): what is still there is looked at through the mount itself, as any program would.
 *
 * A request that is never answered leaves who asked in a sleep that no signal ends. So whatever touches the mount is done by a child
 * with a time limit; one that does not come back is abandoned, and freed with its request when the mount's program ends.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "buf.h"
#include "call.h"
#include "cleanup.h"
#include "mount.h"
#include "mount_table.h"
#include "shown.h"

enum {
	KILL_QUIET_MS = 10000, /* with --kill: how long the mount may be silent */
	DETACH_MS = 10000,
	FREED_MS = 5000, /* until programs have closed what they waited at */
	FREED_AGAIN_MS = 20,
	AFTER_DRAIN_MS = 10000,
	KILLED_MS = 10000
};

/* What a child ends with. */
enum { ANSWER_FINE, ANSWER_REFUSED, ANSWER_DEAD, ANSWER_BUSY, ANSWER_FAILED };

static int complain(const char *what, const char *why)
{
	fprintf(stderr, "sandboxfs: %s: %s\n", what, why);
	return 1;
}

/* --- in the child --- */

/* A sentence with names in it that another user may have made. */
static void __attribute__((format(printf, 1, 2))) note(const char *fmt, ...)
{
	AUTO_BUF text = BUF_INIT, line = BUF_INIT;
	va_list ap;

	va_start(ap, fmt);
	buf_vprintf(&text, fmt, ap);
	va_end(ap);
	shown_add(&line, text.data ? text.data : "", text.size, SHOWN_KEEP);
	fprintf(stderr, "sandboxfs: %s\n", line.data ? line.data : "out of memory");
}

/* The whole of a small file; NULL if it cannot be read. */
static char *read_file(const char *path)
{
	AUTO_BUF b = BUF_INIT;
	AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;
	char *to;

	if (fd < 0)
		return NULL;
	while ((to = buf_reserve(&b, 65536)) && (n = read(fd, to, 65536)) > 0)
		b.size += (size_t)n;
	buf_char(&b, 0);
	return buf_steal(&b);
}

/*
 * The control tree of the mount as a whole. With subdir= the mount is the sandbox's own directory, where `ctl` could be a file of the
 * sandbox; `.ctl` then is ours, and in the other kinds of mount there is no such name.
 */
static const char *control_of(const char *mnt, struct buf *out)
{
	buf_printf(out, "%s/.ctl", mnt);
	if (out->data && access(out->data, F_OK) < 0) {
		buf_clear(out);
		buf_printf(out, "%s/ctl", mnt);
	}
	return out->data;
}

/* How many processes of this control tree run, each said. */
static int running_in(const char *ctl, const char *name)
{
	AUTO_BUF dir = BUF_INIT;
	struct dirent *e;
	int count = 0;
	DIR *d;

	buf_printf(&dir, "%s/processes", ctl);
	d = dir.data ? opendir(dir.data) : NULL;
	while (d && (e = readdir(d))) {
		AUTO_BUF path = BUF_INIT;
		AUTO_FREE char *word = NULL;

		if (e->d_name[0] == '.')
			continue;
		buf_printf(&path, "%s/%s/status", dir.data, e->d_name);
		word = path.data ? read_file(path.data) : NULL;
		if (word && (strncmp(word, "running", 7) == 0 || strncmp(word, "starting", 8) == 0)) {
			note("%s: process %s runs", name, e->d_name);
			count++;
		}
	}
	if (d)
		closedir(d);
	return count;
}

/* Flushes a control tree and says what does not reach the sandbox. Number of lines. */
static int unsent_in(const char *ctl, const char *name)
{
	AUTO_BUF path = BUF_INIT;
	AUTO_FREE char *lines = NULL;
	int count = 0;

	buf_printf(&path, "%s/ctl", ctl);
	AUTO_FD int fd = path.data ? open(path.data, O_WRONLY | O_CLOEXEC) : -1;
	buf_clear(&path);
	buf_printf(&path, "%s/sync", ctl);
	lines = path.data ? read_file(path.data) : NULL;
	if (lines && *lines) {
		/* What a flush cannot send is said by the lines it leaves. */
		if (fd < 0 || write(fd, "flush\n", 6) < 0)
			note("%s: flush: %s", name, strerror(errno));
		free(lines);
		lines = read_file(path.data);
	}
	for (char *p = lines; p && *p;) {
		char *end = strchrnul(p, '\n');
		if (strncmp(p, "conflict ", 9) != 0) {
			note("%s: %.*s", name, (int)(end - p), p);
			count++;
		}
		p = *end ? end + 1 : end;
	}
	return count;
}

/* Asks every control tree of the mount. */
static int each_ctl(const char *mnt, int (*ask)(const char *ctl, const char *name))
{
	AUTO_BUF control = BUF_INIT, probe = BUF_INIT;
	struct dirent *e;
	int count = 0;
	DIR *d;

	if (!control_of(mnt, &control))
		return 0;
	buf_printf(&probe, "%s/exec", control.data);
	if (probe.data && access(probe.data, F_OK) == 0)
		return ask(control.data, mnt); /* the mount of one sandbox */
	d = opendir(mnt);
	while (d && (e = readdir(d))) {
		AUTO_BUF path = BUF_INIT;

		if (e->d_name[0] == '.' || strcmp(e->d_name, "ctl") == 0)
			continue;
		buf_printf(&path, "%s/%s/ctl", mnt, e->d_name);
		if (path.data && access(path.data, F_OK) == 0)
			count += ask(path.data, e->d_name);
	}
	if (d)
		closedir(d);
	return count;
}

/* A verb for a control tree, if its sandbox runs: none is started for its end. */
static void tell(const char *ctl, const char *name, const char *verb)
{
	AUTO_BUF path = BUF_INIT;
	AUTO_FREE char *word = NULL;

	buf_printf(&path, "%s/status", ctl);
	word = path.data ? read_file(path.data) : NULL;
	if (!word || strncmp(word, "running", 7) != 0)
		return;
	buf_clear(&path);
	buf_printf(&path, "%s/ctl", ctl);
	AUTO_FD int fd = path.data ? open(path.data, O_WRONLY | O_CLOEXEC) : -1;
	if (fd < 0 || write(fd, verb, strlen(verb)) < 0)
		note("%s: %.*s: %s", name, (int)strcspn(verb, "\n"), verb, strerror(errno));
}

static int kill_in(const char *ctl, const char *name)
{
	tell(ctl, name, "kill-all\n");
	return 0;
}

static int cancel_in(const char *ctl, const char *name)
{
	tell(ctl, name, "cancel\n");
	return 0;
}

struct question {
	const char *mnt;
	const struct mount_entry *entry;
	bool kill;
	bool local;     /* what runs there ends with the mount */
	bool processes; /* those that run are a reason to refuse */
	bool lazy;
};

/*
 * Root becomes the user whose mount it is: others are not let in to look, and what a user's program answers must not have more done
 * than that user could do.
 */
static int become_owner(const struct mount_entry *e)
{
	if (geteuid() != 0 || e->uid == 0)
		return 0;
	if (setgroups(0, NULL) < 0 || setresgid(e->gid, e->gid, e->gid) < 0 ||
		setresuid(e->uid, e->uid, e->uid) < 0)
		return -errno;
	return 0;
}

static int ask(const struct question *q)
{
	(void)become_owner(q->entry); /* where it cannot, it looks as it is, if it may */
	if (mount_is_dead(q->mnt))
		return ANSWER_DEAD;
	/* What may not be looked at is not empty for that. */
	if (!q->kill && access(q->mnt, R_OK | X_OK) < 0 && errno == EACCES) {
		complain(q->mnt, "this user may not ask it what is unsent or runs; --kill ends it anyway");
		return ANSWER_REFUSED;
	}
	if (q->processes && each_ctl(q->mnt, running_in)) {
		complain(q->mnt, "processes run; --kill ends them with the mount");
		return ANSWER_REFUSED;
	}
	if (each_ctl(q->mnt, unsent_in)) {
		complain(q->mnt, "not unmounted: this is not in the sandbox yet (echo discard all > "
						 "ctl/ctl gives it up)");
		return ANSWER_REFUSED;
	}
	return ANSWER_FINE;
}

static int answer_of(const struct question *q, int err)
{
	if (err && err != -EBUSY)
		complain(q->mnt, err == -EINVAL ? "is no longer mounted here" : strerror(-err));
	return !err ? ANSWER_FINE : err == -EBUSY ? ANSWER_BUSY : ANSWER_FAILED;
}

static int detach(const struct question *q)
{
	return answer_of(q, mount_detach(q->mnt, q->lazy));
}

/* With --kill: programs may have it in use for nothing but the command that they wait for. */
static int end_all(const struct question *q)
{
	(void)become_owner(q->entry);                           /* as ask */
	(void)each_ctl(q->mnt, q->local ? kill_in : cancel_in); /* they count nothing */
	return ANSWER_FINE;
}

static int detach_freed(const struct question *q)
{
	int64_t deadline = call_now_ms() + FREED_MS;
	int err;

	while ((err = mount_detach(q->mnt, false)) == -EBUSY && call_now_ms() < deadline)
		(void)poll(NULL, 0, FREED_AGAIN_MS); /* nobody tells when it is free */
	return answer_of(q, err);
}

/* --- in the parent --- */

/* Does fn in a child: what it ends with, or -ETIMEDOUT: it is abandoned. */
static int in_child(int (*fn)(const struct question *q), const struct question *q, int64_t limit_ms)
{
	int64_t deadline = call_now_ms() + limit_ms, left;
	pid_t pid = fork();
	int status;

	if (pid < 0)
		return -errno;
	if (pid == 0)
		_exit(fn(q));
	AUTO_FD int fd = pidfd_open(pid, 0);
	struct pollfd p = {.fd = fd, .events = POLLIN};
	while ((left = deadline - call_now_ms()) > 0 && poll(&p, 1, (int)left) != 1)
		;
	if (left <= 0) {
		kill(pid, SIGKILL); /* ours and not waited for: the number is still its own */
		return -ETIMEDOUT;
	}
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) ? WEXITSTATUS(status) : ANSWER_FAILED;
}

static bool ended_within(int program, int64_t limit_ms)
{
	struct pollfd p = {.fd = program, .events = POLLIN};

	return poll(&p, 1, (int)limit_ms) == 1;
}

/* Root's signal goes as far as one of the mount's user would: which program that is, that user has told. */
static void signal_program(const struct mount_entry *e, int program, int sig)
{
	pid_t pid = geteuid() == 0 && e->uid ? fork() : -1;

	if (pid == 0)
		_exit(become_owner(e) == 0 ? pidfd_send_signal(program, sig, NULL, 0) < 0 : 1);
	/* What cannot be sent is seen at the program, which does not end; one that has ended is as good. */
	if (pid < 0 && (geteuid() != 0 || !e->uid))
		(void)pidfd_send_signal(program, sig, NULL, 0);
	while (pid > 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
}

/*
 * The mount is gone from here, but another mount namespace may still hold a copy of it, and then the kernel does not end the
 * session: the program is told. 0 or 1, with a sentence.
 */
static int end_program(
	const struct options *o, const char *mnt, const struct mount_entry *e, int program)
{
	if (program < 0)
		return 0;
	signal_program(e, program, SIGTERM);
	if (ended_within(program, o->drain_ms + AFTER_DRAIN_MS))
		return 0;
	if (!o->kill)
		return complain(mnt, "unmounted, but its program has not ended; --kill would end it");
	signal_program(e, program, SIGKILL);
	if (!ended_within(program, KILLED_MS))
		return complain(mnt, "unmounted, but its program cannot be ended");
	return complain(mnt,
		"unmounted; its program did not end by itself and was killed: what it had not sent is "
		"not in the sandbox");
}

/* Asks the mount whether it may end: 0 (with *lazy, how), or 1 with a sentence. */
static int may_end(const struct options *o, struct question *q, int program)
{
	int64_t limit = o->timeout_ms;

	if (o->kill && limit > KILL_QUIET_MS)
		limit = KILL_QUIET_MS;
	int answer = in_child(ask, q, limit);
	if (answer == -ETIMEDOUT) {
		fprintf(stderr, "sandboxfs: %s: no answer within %lld s%s\n", q->mnt,
			(long long)limit / 1000,
			o->kill ? "" : "; -o timeout= waits longer, --kill ends it anyway");
		q->lazy = true;
		return !o->kill;
	}
	if (answer < 0)
		return complain(q->mnt, strerror(-answer));
	q->lazy = answer == ANSWER_DEAD && program < 0;
	return answer == ANSWER_FINE || answer == ANSWER_DEAD ? 0 : 1;
}

int mount_end(const struct options *o)
{
	AUTO_FREE char *mnt = mount_resolve(o->given_mountpoint);
	struct mount_entry e, made;
	pid_t pid = 0;

	if (!mnt || !mount_find(mnt, &e))
		return complain(o->given_mountpoint, "no sandboxfs is mounted here");
	made = e;
	AUTO_FD int program = mount_program(&made, &pid);
	/* Processes of a server that somebody else runs outlive the mount. */
	struct question q = {.mnt = mnt,
		.entry = &made,
		.kill = o->kill,
		.local = e.local,
		.processes = e.local && !o->kill};
	if (may_end(o, &q, program))
		return 1;
	int detached = in_child(detach, &q, DETACH_MS);
	if (detached == ANSWER_BUSY && o->kill) {
		(void)in_child(end_all, &q, DETACH_MS); /* what it does not end is in use still */
		detached = in_child(detach_freed, &q, DETACH_MS + FREED_MS);
	}
	if (detached == ANSWER_BUSY)
		return complain(
			mnt, "in use: a program has a file or directory of it open; fuser -vm shows which");
	if (detached != ANSWER_FINE && !(o->kill && detached == -ETIMEDOUT))
		return detached == -ETIMEDOUT
				   ? complain(
						 mnt, "the kernel does not unmount it: a request waits; --kill ends it")
				   : 1;
	int status = end_program(o, mnt, &made, program);
	if (detached == -ETIMEDOUT && mount_find(mnt, &e))
		(void)in_child(detach, &q, DETACH_MS); /* what it waited for is over */
	return mount_find(mnt, &e) ? complain(mnt, "it is still mounted") : status;
}
