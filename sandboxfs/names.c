/*
 * Sandboxes by name (names.h): the directories, their locks.
 */
#include "names.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "log.h"

enum {
	REMOVE_TRIES = 100,
	LOCK_TEXT = 8192,
	LOCK_PATIENCE_MS = 300,
	DYING_MS = 10000, /* a program that was just killed still closes its files */
	LOCK_LOOK_MS = 20,
	LOCK_LOOKS = 15,
	OLD_MS = 2000, /* what it started has so long to go by itself */
	OLD_KILLED_MS = 10000,
	PF_EXITING = 4 /* of /proc/PID/stat, as the kernel has it */
};

/* --- the directory --- */

/* mkdir -p, 0700 each; what is there may be reached through links: the user chose the path. */
static int make_path(const char *path)
{
	AUTO_FREE char *copy = strdup(path);
	if (!copy)
		return -ENOMEM;
	for (char *at = copy + 1;; at++) {
		char end = *at;
		if (end && end != '/')
			continue;
		*at = 0;
		if (mkdir(copy, 0700) < 0 && errno != EEXIST)
			return -errno;
		if (!end)
			return 0;
		*at = '/';
	}
}

/* Below where a user's data is kept: new; "": neither HOME nor XDG_DATA_HOME says where that is. */
char *names_data_home(const char *below)
{
	AUTO_BUF b = BUF_INIT;
	const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
	if (data && *data == '/')
		buf_printf(&b, "%s/sandboxfs%s", data, below);
	else if (geteuid() == 0)
		buf_printf(&b, "/var/lib/sandboxfs%s", below);
	else if (home && *home == '/')
		buf_printf(&b, "%s/.local/share/sandboxfs%s", home, below);
	else
		buf_str(&b, "");
	return buf_steal(&b);
}

int names_open(struct names *n, struct call *c)
{
	if (!*n->path)
		return call_fault(c, ENOENT, NULL,
			"%s: there is no place for data: neither HOME nor XDG_DATA_HOME is set%s", n->server,
			n->another);
	int err = make_path(n->path);
	if (!err) {
		n->dir = open(n->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
		err = n->dir < 0 ? -errno : 0;
	}
	if (err)
		return call_fault(
			c, -err, NULL, "%s: %s: %s%s", n->server, n->path, strerror(-err), n->another);
	struct stat st;
	if (fstat(n->dir, &st) < 0)
		return -errno;
	if (st.st_uid != geteuid())
		return call_fault(c, EPERM, NULL, "%s: %s belongs to uid %u, not to you%s", n->server,
			n->path, (unsigned)st.st_uid, n->another);
	if (st.st_mode & 022)
		return call_fault(c, EPERM, NULL, "%s: others can write to %s; chmod go-w it%s", n->server,
			n->path, n->another);
	return 0;
}

void names_close(struct names *n)
{
	if (n->dir >= 0)
		close(steal_fd(&n->dir));
	free(steal(n->path));
}

int names_find(const struct names *n, struct call *c, const char *name, int *fd)
{
	if (!n->valid(name))
		return -ENOENT;
	AUTO_FD int dir = openat(n->dir, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (dir < 0 && errno == ENOENT)
		return -ENOENT;
	if (dir < 0)
		return call_fault(c, errno, NULL, "%s: %s/%s: %s (links are not followed)", name, n->path,
			name, strerror(errno));
	struct stat st;
	if (fstat(dir, &st) < 0)
		return -errno;
	if (st.st_uid != geteuid() || st.st_mode & 022)
		return call_fault(c, EPERM, NULL, "%s: %s/%s must be yours and writable for nobody else",
			name, n->path, name);
	*fd = steal_fd(&dir);
	return 0;
}

int names_create(const struct names *n, struct call *c, const char *name)
{
	if (!n->valid(name))
		return call_fault(c, EINVAL, NULL, "%s: %s", name, n->grammar);
	if (mkdirat(n->dir, name, 0700) == 0)
		return 0;
	if (errno == EEXIST)
		return -EEXIST;
	return call_fault(c, errno, NULL, "%s: %s/%s: %s", name, n->path, name, strerror(errno));
}

DIR *names_list(const struct names *n)
{
	AUTO_FD int fd = openat(n->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	if (d)
		steal_fd(&fd);
	return d;
}

int names_each(const struct names *n, bool (*cb)(const char *name, void *arg), void *arg)
{
	DIR *d = names_list(n);
	if (!d)
		return -errno;
	struct dirent *e;
	while (errno = 0, (e = readdir(d))) {
		struct stat st;
		if (!n->valid(e->d_name) || fstatat(n->dir, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
			!S_ISDIR(st.st_mode))
			continue;
		if (!cb(e->d_name, arg))
			break;
	}
	int err = e ? 0 : -errno;
	closedir(d);
	return err;
}

int names_remove(const struct names *n, struct call *c, const char *name, int dir)
{
	/* Another mount that found the directory under its name may just be making a lock in it. */
	for (int tries = 0; tries < REMOVE_TRIES; tries++) {
		if (unlinkat(dir, "lock", 0) < 0 && errno != ENOENT)
			break;
		if (unlinkat(n->dir, name, AT_REMOVEDIR) == 0 || errno == ENOENT)
			return 0;
		if (errno != ENOTEMPTY)
			break;
	}
	return call_fault(c, errno, NULL, "%s: %s/%s: %s", name, n->path, name, strerror(errno));
}

/* --- locks --- */

int names_lock_now(int fd)
{
	struct flock all = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	return fcntl(fd, F_OFD_SETLK, &all) < 0 ? -errno : 0;
}

/* Reads `PID PATH` from the lock; 0: not there (yet). */
static pid_t lock_holder(int fd, char *path, size_t size)
{
	char text[LOCK_TEXT];
	ssize_t n = pread(fd, text, sizeof text - 1, 0);
	path[0] = 0;
	if (n <= 0)
		return 0;
	text[n] = 0;
	char *end;
	long pid = strtol(text, &end, 10);
	if (pid <= 0 || pid > INT32_MAX || *end != ' ')
		return 0;
	end[1 + strcspn(end + 1, "\n")] = 0;
	for (char *at = ++end; *at; at++)
		if ((unsigned char)*at < ' ' || *at == 127)
			*at = '?';
	snprintf(path, size, "%s", end); /* cut: a sentence for a person */
	return (pid_t)pid;
}

/* SIGKILL is on its way to it. */
static bool is_killed(pid_t pid)
{
	char path[64];
	AUTO_FREE char *line = NULL;
	size_t size = 0;
	unsigned long long signals, pending = 0;
	snprintf(path, sizeof path, "/proc/%d/status", (int)pid);
	FILE *f = fopen(path, "re");
	while (f && getline(&line, &size, f) > 0)
		if (sscanf(line, "SigPnd: %llx", &signals) == 1 ||
			sscanf(line, "ShdPnd: %llx", &signals) == 1)
			pending |= signals;
	if (f)
		fclose(f);
	return pending >> (SIGKILL - 1) & 1;
}

/* Is it ending, or about to? It still has its files then. */
static bool is_dying(pid_t pid)
{
	char path[64], text[1024], state;
	unsigned flags;
	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	text[n > 0 ? n : 0] = 0;
	const char *at = strrchr(text, ')'); /* the command's name may hold anything */
	if (!at || sscanf(at, ") %c %*d %*d %*d %*d %*d %u", &state, &flags) != 2)
		return false;
	return state == 'Z' || flags & PF_EXITING || is_killed(pid);
}

/* Takes the lock; -EBUSY and its holder (0: not known) when another has it and keeps it. */
static int lock_take(int fd, struct call *c, pid_t *holder, char *path, size_t size)
{
	int64_t now = call_now_ms(), until = now + LOCK_PATIENCE_MS, last = now + DYING_MS;
	for (;; now = call_now_ms()) {
		int err = names_lock_now(fd);
		if (err != -EAGAIN && err != -EACCES)
			return err;
		*holder = lock_holder(fd, path, size);
		if (*holder && is_dying(*holder))
			until = now + LOCK_PATIENCE_MS < last ? now + LOCK_PATIENCE_MS : last;
		if (now >= until)
			return -EBUSY;
		if (c && call_cancelled(c))
			return -EINTR;
		nanosleep(
			&(struct timespec){0, LOCK_LOOK_MS * 1000000}, NULL); /* a lock cannot be polled */
	}
}

/* When a process started, in ticks since boot; 0: there is none. With its number it names it for ever. */
static unsigned long long start_time(pid_t pid)
{
	char path[64], text[1024];
	snprintf(path, sizeof path, "/proc/%d/stat", (int)pid);
	AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, text, sizeof text - 1);
	if (n <= 0)
		return 0;
	text[n] = 0;
	char *at = strrchr(text, ')'); /* the command's name may hold anything */
	for (int field = 2; at && field < 22; field++)
		at = strchr(at + 1, ' ');
	return at ? strtoull(at + 1, NULL, 10) : 0;
}

/* Waits for the end of the process fd holds: 0, -ETIMEDOUT, or -EINTR: c was cancelled (NULL: cannot be). */
static int old_ends(int fd, struct call *c, int64_t limit_ms)
{
	struct pollfd p = {fd, POLLIN, 0};
	for (int64_t until = call_now_ms() + limit_ms; poll(&p, 1, LOCK_LOOK_MS) != 1;) {
		if (c && call_cancelled(c))
			return -EINTR;
		if (call_now_ms() >= until)
			return -ETIMEDOUT;
	}
	return 0;
}

/*
 * The sandbox of a program that was killed dies with it, but the lock may be free a moment earlier. Waits for that moment,
 * so that two sandboxes never have one workspace.
 */
static int wait_for_old(int lock, struct call *c, const char *name)
{
	char text[LOCK_TEXT];
	ssize_t n = pread(lock, text, sizeof text - 1, 0);
	text[n > 0 ? n : 0] = 0;
	char *line = strchr(text, '\n');
	int pid;
	unsigned long long started;
	if (!line || sscanf(line + 1, "runs %d %llu", &pid, &started) != 2 || pid <= 1)
		return 0;
	AUTO_FD int fd = pidfd_open(pid, 0);
	if (fd < 0 || start_time(pid) != started)
		return 0;
	int err = old_ends(fd, c, OLD_MS);
	if (err != -ETIMEDOUT)
		return err;
	log_error("a sandbox of a program that died still ran (pid %d): killed", pid);
	pidfd_send_signal(fd, SIGKILL, NULL, 0); /* what fails here shows in the wait */
	err = old_ends(fd, c, OLD_KILLED_MS);
	if (err != -ETIMEDOUT)
		return err;
	return call_fault(c, EBUSY, NULL,
		"%s: its sandbox of a program that died (pid %d) still runs and cannot be killed", name,
		pid);
}

int names_note(int lock, pid_t pid)
{
	AUTO_BUF text = BUF_INIT;
	struct stat st;
	buf_printf(&text, "runs %d %llu\n", (int)pid, start_time(pid));
	if (buf_error(&text))
		return -ENOMEM;
	if (fstat(lock, &st) < 0 || pwrite(lock, text.data, text.size, st.st_size) < 0)
		return -errno;
	return 0;
}

int names_lock(const struct names *n, struct call *c, const char *name, int dir, int *fd)
{
	AUTO_FD int lock =
		openat(dir, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600);
	if (lock < 0)
		return call_fault(
			c, errno, NULL, "%s: %s/%s/lock: %s", name, n->path, name, strerror(errno));
	char path[1024];
	pid_t holder = 0;
	int err = lock_take(lock, c, &holder, path, sizeof path);
	if (err == -EBUSY)
		return holder ? call_fault(
							c, EBUSY, NULL, "%s: in use by pid %d (%s)", name, (int)holder, path)
					  : call_fault(c, EBUSY, NULL, "%s: in use by another mount", name);
	if (err)
		return err;
	/* It may have been destroyed, and even made anew, between the opening of dir and now. */
	struct stat mine, named;
	if (fstat(dir, &mine) < 0 || fstatat(n->dir, name, &named, AT_SYMLINK_NOFOLLOW) < 0 ||
		mine.st_ino != named.st_ino || mine.st_dev != named.st_dev)
		return -ENOENT;
	err = wait_for_old(lock, c, name);
	if (err)
		return err;
	AUTO_BUF text = BUF_INIT;
	buf_printf(&text, "%d %s\n", (int)getpid(), n->mountpoint ? n->mountpoint : "-");
	if (buf_error(&text))
		return -ENOMEM;
	if (ftruncate(lock, 0) < 0 || pwrite(lock, text.data, text.size, 0) != (ssize_t)text.size)
		log_info("%s: the lock does not say who holds it: %s", name, strerror(errno));
	*fd = steal_fd(&lock);
	return 0;
}

/* Who holds a lock that is taken; its holder may just be about to write that. */
static pid_t lock_named(int lock, char *path, size_t size)
{
	pid_t holder = lock_holder(lock, path, size);
	for (int i = 0; !holder && i < LOCK_LOOKS; i++) {
		nanosleep(&(struct timespec){0, LOCK_LOOK_MS * 1000000}, NULL); /* nor can a file be */
		holder = lock_holder(lock, path, size);
	}
	return holder;
}

int names_in_use(const struct names *n, const char *name, char *detail, size_t size)
{
	AUTO_FD int dir = -1;
	if (names_find(n, NULL, name, &dir) < 0)
		return 0;
	AUTO_FD int lock = openat(dir, "lock", O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	struct flock all = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	if (lock < 0 || fcntl(lock, F_OFD_GETLK, &all) < 0 || all.l_type == F_UNLCK)
		return 0;
	char path[1024];
	pid_t holder = lock_named(lock, path, sizeof path);
	if (holder == getpid())
		return 0;
	if (holder)
		snprintf(detail, size, "pid %d, %s", (int)holder, path);
	else
		snprintf(detail, size, "another mount");
	return 1;
}
