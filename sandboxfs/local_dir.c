/*
 * Local sandboxes on disk: the data directory, NAME/{workspace,spool,buckets,lock}, their locks and removal.
 * Offers what local.h lists. Knows nothing of bubblewrap.
 *
 * Everything is opened relative to a descriptor and never through a link. NAME/ is 0700 and ours: a sandbox sees only what is inside
 * workspace/ and spool/, so that nothing between check and use can be swapped by it. What is inside
 * these two belongs to it: no code of ours walks there but the removal (tree_remove.h), in a child under the sandbox's uid.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "local.h"
#include "log.h"
#include "tree_remove.h"

enum {
	NAME_LENGTH = 63,
	LOCK_TEXT = 8192,
	LOCK_PATIENCE_MS = 300, /* a program that was just killed still closes its files */
	LOCK_LOOK_MS = 20,
	REMOVE_TRIES = 100,
	OLD_MS = 2000 /* what it started has so long to go by itself */
};

bool local_name_valid(const char *name)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
	static const char more[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-";
	size_t n = strlen(name);
	return n >= 1 && n <= NAME_LENGTH && strchr(plain, name[0]) && strspn(name, more) == n;
}

/* --- the data directory --- */

/* Where it is by default, or what follows "local:"; new. */
static char *data_place(const struct options *o, bool root)
{
	AUTO_BUF b = BUF_INIT;
	const char *given = o->server && !strncmp(o->server, "local:", 6) ? o->server + 6 : "";
	const char *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");
	if (*given == '/') {
		buf_str(&b, given);
	} else if (*given) {
		AUTO_FREE char *cwd = getcwd(NULL, 0);
		buf_printf(&b, "%s/%s", cwd ? cwd : "", given);
	} else if (data && *data == '/') {
		buf_printf(&b, "%s/sandboxfs", data);
	} else if (root) {
		buf_str(&b, "/var/lib/sandboxfs");
	} else if (home && *home == '/') {
		buf_printf(&b, "%s/.local/share/sandboxfs", home);
	} else {
		buf_str(&b, "");
	}
	return buf_steal(&b);
}

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

static void remove_leftovers(const struct local *l);

int local_dir_open(struct local *l, struct call *c)
{
	l->data_path = data_place(l->options, l->drop);
	if (!l->data_path)
		return -ENOMEM;
	if (!*l->data_path)
		return call_fault(c, ENOENT, NULL,
			"local: there is no place for data: neither HOME nor XDG_DATA_HOME is set; give one: "
			"local:DIR");
	int err = make_path(l->data_path);
	if (!err) {
		l->data = open(l->data_path, O_PATH | O_DIRECTORY | O_CLOEXEC);
		err = l->data < 0 ? -errno : 0;
	}
	if (err)
		return call_fault(c, -err, NULL, "local: %s: %s; give another place: local:DIR",
			l->data_path, strerror(-err));
	struct stat st;
	if (fstat(l->data, &st) < 0)
		return -errno;
	if (st.st_uid != geteuid())
		return call_fault(c, EPERM, NULL,
			"local: %s belongs to uid %u, not to you; give a place of your own: local:DIR",
			l->data_path, (unsigned)st.st_uid);
	if (st.st_mode & 022)
		return call_fault(c, EPERM, NULL,
			"local: others can write to %s; chmod go-w it, or give another place: local:DIR",
			l->data_path);
	remove_leftovers(l);
	return 0;
}

int local_dir_find(const struct local *l, struct call *c, const char *name, int *fd)
{
	if (!local_name_valid(name))
		return -ENOENT;
	AUTO_FD int dir = openat(l->data, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (dir < 0 && errno == ENOENT)
		return -ENOENT;
	if (dir < 0)
		return call_fault(c, errno, NULL, "%s: %s/%s: %s (links are not followed)", name,
			l->data_path, name, strerror(errno));
	struct stat st;
	if (fstat(dir, &st) < 0)
		return -errno;
	if (st.st_uid != geteuid() || st.st_mode & 022)
		return call_fault(c, EPERM, NULL, "%s: %s/%s must be yours and writable for nobody else",
			name, l->data_path, name);
	*fd = steal_fd(&dir);
	return 0;
}

int local_dir_create(struct local *l, struct call *c, const char *name)
{
	if (!local_name_valid(name))
		return call_fault(c, EINVAL, NULL,
			"%s: a local sandbox is named by letters, digits, `.`, `_`, `-`, at most 63, and "
			"begins with a letter or digit",
			name);
	if (mkdirat(l->data, name, 0700) == 0)
		return 0;
	if (errno == EEXIST)
		return -EEXIST;
	return call_fault(c, errno, NULL, "%s: %s/%s: %s", name, l->data_path, name, strerror(errno));
}

static DIR *open_list(const struct local *l)
{
	AUTO_FD int fd = openat(l->data, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	if (d)
		steal_fd(&fd);
	return d;
}

int local_dir_each(const struct local *l, bool (*cb)(const char *name, void *arg), void *arg)
{
	DIR *d = open_list(l);
	if (!d)
		return -errno;
	struct dirent *e;
	while (errno = 0, (e = readdir(d))) {
		struct stat st;
		if (!local_name_valid(e->d_name) ||
			fstatat(l->data, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 || !S_ISDIR(st.st_mode))
			continue;
		if (!cb(e->d_name, arg))
			break;
	}
	int err = e ? 0 : -errno;
	closedir(d);
	return err;
}

/* --- locks --- */

static int lock_now(int fd, short type)
{
	struct flock all = {.l_type = type, .l_whence = SEEK_SET};
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

/* Takes the lock; -EBUSY and its holder (0: not known) when another has it and keeps it. */
static int lock_take(int fd, struct call *c, pid_t *holder, char *path, size_t size)
{
	for (int64_t until = call_now_ms() + LOCK_PATIENCE_MS;;) {
		int err = lock_now(fd, F_WRLCK);
		if (err != -EAGAIN && err != -EACCES)
			return err;
		*holder = lock_holder(fd, path, size);
		if (call_now_ms() >= until)
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
	struct pollfd p = {fd, POLLIN, 0};
	if (poll(&p, 1, OLD_MS) == 1)
		return 0;
	log_error("a sandbox of a program that died still ran (pid %d): killed", pid);
	pidfd_send_signal(fd, SIGKILL, NULL, 0); /* what fails here shows in the poll */
	if (poll(&p, 1, OLD_MS) == 1)
		return 0;
	return call_fault(c, EBUSY, NULL,
		"%s: its sandbox of a program that died (pid %d) still runs and cannot be killed", name,
		pid);
}

int local_dir_note(int lock, pid_t pid)
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

int local_dir_lock(const struct local *l, struct call *c, const char *name, int dir, int *fd)
{
	AUTO_FD int lock =
		openat(dir, "lock", O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK, 0600);
	if (lock < 0)
		return call_fault(
			c, errno, NULL, "%s: %s/%s/lock: %s", name, l->data_path, name, strerror(errno));
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
	if (fstat(dir, &mine) < 0 || fstatat(l->data, name, &named, AT_SYMLINK_NOFOLLOW) < 0 ||
		mine.st_ino != named.st_ino || mine.st_dev != named.st_dev)
		return -ENOENT;
	err = wait_for_old(lock, c, name);
	if (err)
		return err;
	AUTO_BUF text = BUF_INIT;
	buf_printf(
		&text, "%d %s\n", (int)getpid(), l->options->mountpoint ? l->options->mountpoint : "-");
	if (buf_error(&text))
		return -ENOMEM;
	if (ftruncate(lock, 0) < 0 || pwrite(lock, text.data, text.size, 0) != (ssize_t)text.size)
		log_info("%s: the lock does not say who holds it: %s", name, strerror(errno));
	*fd = steal_fd(&lock);
	return 0;
}

int local_dir_in_use(const struct local *l, const char *name, char *detail, size_t size)
{
	AUTO_FD int dir = -1;
	if (local_dir_find(l, NULL, name, &dir) < 0)
		return 0;
	AUTO_FD int lock = openat(dir, "lock", O_RDWR | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
	struct flock all = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	if (lock < 0 || fcntl(lock, F_OFD_GETLK, &all) < 0 || all.l_type == F_UNLCK)
		return 0;
	char path[1024];
	pid_t holder = lock_holder(lock, path, sizeof path);
	if (holder == getpid())
		return 0;
	if (holder)
		snprintf(detail, size, "pid %d, %s", (int)holder, path);
	else
		snprintf(detail, size, "another mount");
	return 1;
}

/* --- what belongs to the sandbox --- */

int local_dir_part(const struct local *l, struct call *c, const char *name, int dir,
	const char *part, bool make, int *fd)
{
	if (make && mkdirat(dir, part, 0755) < 0 && errno != EEXIST)
		return call_fault(
			c, errno, NULL, "%s: %s/%s/%s: %s", name, l->data_path, name, part, strerror(errno));
	AUTO_FD int found = openat(dir, part, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (found < 0)
		return call_fault(c, errno, NULL,
			"%s: %s/%s/%s is not a directory (%s; links are not followed); move it away", name,
			l->data_path, name, part, strerror(errno));
	struct stat st;
	if (fstat(found, &st) < 0)
		return -errno;
	/* Just made, or made by a program that died before the next line. */
	if (make && l->drop && st.st_uid == geteuid()) {
		if (fchownat(found, "", l->uid, l->gid, AT_EMPTY_PATH) < 0 || fstat(found, &st) < 0)
			return call_fault(c, errno, NULL, "%s: %s/%s/%s: %s", name, l->data_path, name, part,
				strerror(errno));
	}
	if (st.st_uid != l->uid)
		return call_fault(c, EPERM, NULL,
			"%s: %s/%s/%s belongs to uid %u, but sandboxes of this user run as uid %u; chown -hR "
			"it",
			name, l->data_path, name, part, (unsigned)st.st_uid, (unsigned)l->uid);
	*fd = steal_fd(&found);
	return 0;
}

/* In a child: empties its working directory. The exit status is 0 or an errno. */
static int empty_body(void *arg)
{
	(void)arg;
	int fd = open(".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	return fd < 0 ? errno : -tree_empty(fd);
}

/* Empties dir under the sandbox's uid. */
static int empty_there(const struct local *l, int dir)
{
	struct spawn what = {.body = empty_body,
		.cwd = dir,
		.userns = -1,
		.netns = -1,
		.drop = l->drop,
		.uid = l->uid,
		.gid = l->gid};
	struct child *child;
	int status, err = spawner_start(l->spawner, &what, &child, NULL);
	if (err)
		return err;
	err = child_wait(child, -1, &status);
	child_put(child);
	return err ? err : WIFEXITED(status) ? -WEXITSTATUS(status) : -EIO;
}

/* Empties and removes what a sandbox could write to. */
static int remove_part(const struct local *l, int dir, const char *part)
{
	struct stat st;
	if (fstatat(dir, part, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : -errno;
	if (!S_ISDIR(st.st_mode))
		return unlinkat(dir, part, 0) < 0 ? -errno : 0;
	/* Its own mode may shut out its owner; the link cannot be swapped, dir is ours alone. */
	if (fchmodat(dir, part, 0700, 0) < 0)
		return -errno;
	AUTO_FD int fd = openat(dir, part, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	int err = empty_there(l, fd);
	if (err) {
		log_error("%s: cannot be emptied: %s", part, strerror(-err));
		return err;
	}
	return unlinkat(dir, part, AT_REMOVEDIR) < 0 ? -errno : 0;
}

int local_dir_clear(
	const struct local *l, struct call *c, const char *name, int dir, const char *part)
{
	/* Usually empty: no need for a child. */
	if (unlinkat(dir, part, AT_REMOVEDIR) == 0 || errno == ENOENT)
		return 0;
	int err = remove_part(l, dir, part);
	if (err)
		return call_fault(c, -err, NULL, "%s: %s/%s/%s cannot be emptied: %s", name, l->data_path,
			name, part, strerror(-err));
	return 0;
}

/* Removes a directory of the data directory that carries no sandbox's name any more. */
static int remove_gone(const struct local *l, const char *gone)
{
	AUTO_FD int dir = openat(l->data, gone, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (dir < 0)
		return -errno;
	int err = remove_part(l, dir, "workspace");
	if (!err)
		err = remove_part(l, dir, "spool");
	if (!err)
		err = remove_part(l, dir, "buckets");
	/* Another mount that found the directory under its name may just be making a lock in it. */
	for (int tries = 0; !err && tries < REMOVE_TRIES; tries++) {
		if (unlinkat(dir, "lock", 0) < 0 && errno != ENOENT)
			return -errno;
		if (unlinkat(l->data, gone, AT_REMOVEDIR) == 0 || errno == ENOENT)
			return 0;
		if (errno != ENOTEMPTY)
			return -errno;
	}
	return err ? err : -ENOTEMPTY;
}

/* What a program that died in local_dir_destroy left. */
static void remove_leftovers(const struct local *l)
{
	DIR *d = open_list(l);
	if (!d)
		return;
	for (struct dirent *e; (e = readdir(d));) {
		if (strncmp(e->d_name, ".gone-", 6))
			continue;
		AUTO_FD int dir = openat(l->data, e->d_name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		AUTO_FD int lock = dir < 0 ? -1 : openat(dir, "lock", O_RDWR | O_NOFOLLOW | O_CLOEXEC);
		if (dir < 0 || (lock >= 0 && lock_now(lock, F_WRLCK) < 0))
			continue; /* somebody is at it */
		int err = remove_gone(l, e->d_name);
		if (err)
			log_info("%s/%s: cannot be removed: %s", l->data_path, e->d_name, strerror(-err));
	}
	closedir(d);
}

int local_dir_destroy(struct local *l, struct call *c, const char *name)
{
	AUTO_FD int dir = -1;
	AUTO_FD int lock = -1;
	int err = local_dir_find(l, c, name, &dir);
	if (!err)
		err = local_dir_lock(l, c, name, dir, &lock);
	if (err)
		return err;
	/* First the name, at once: whoever makes it anew never meets the old files. */
	uint64_t salt;
	char gone[32];
	if (getrandom(&salt, sizeof salt, 0) != (ssize_t)sizeof salt)
		return -EIO;
	snprintf(gone, sizeof gone, ".gone-%016llx", (unsigned long long)salt);
	if (renameat(l->data, name, l->data, gone) < 0)
		return call_fault(
			c, errno, NULL, "%s: %s/%s: %s", name, l->data_path, name, strerror(errno));
	err = remove_gone(l, gone);
	if (err)
		return call_fault(c, -err, NULL, "%s: destroyed, but %s/%s could not be removed whole: %s",
			name, l->data_path, gone, strerror(-err));
	return 0;
}
