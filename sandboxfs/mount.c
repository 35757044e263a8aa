/*
 * See mount.h.
 */
#include "mount.h"

#define FUSE_USE_VERSION 314
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <limits.h>
#include <mntent.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "buf.h"
#include "cleanup.h"

#define FS_TYPE "fuse.sandboxfs"

extern char **environ;

static int complain(const char *what, const char *why)
{
	fprintf(stderr, "sandboxfs: %s: %s\n", what, why);
	return -EINVAL;
}

/* Is the topmost mount at this place one of ours? */
static bool is_ours(const char *path)
{
	FILE *f = setmntent("/proc/self/mounts", "re");
	bool ours = false;
	struct mntent m, *e;
	AUTO_FREE char *text = malloc(64 << 10);

	while (f && text && (e = getmntent_r(f, &m, text, 64 << 10)))
		if (strcmp(e->mnt_dir, path) == 0)
			ours = strcmp(e->mnt_type, FS_TYPE) == 0;
	if (f)
		endmntent(f);
	return ours;
}

int mount_detach(const char *mountpoint, bool lazy)
{
	char *argv[] = {"fusermount3", "-u", lazy ? "-zq" : "-q", "--", (char *)mountpoint, NULL};
	int status;
	pid_t pid;

	if (umount2(mountpoint, (lazy ? MNT_DETACH : 0) | UMOUNT_NOFOLLOW) == 0)
		return 0;
	if (errno != EPERM)
		return -errno;
	if (posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ) != 0)
		return -ENOENT;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EBUSY;
}

/*
 * The absolute path of the mount point. realpath(3) fails on a mount whose program has died, so the
 * last component is taken as it is.
 */
static char *resolve(const char *given)
{
	AUTO_FREE char *copy = strdup(given);
	AUTO_FREE char *dir = NULL;
	AUTO_BUF out = BUF_INIT;
	char *slash, *last;
	char *whole = realpath(given, NULL);

	if (whole || errno != ENOTCONN || !copy)
		return whole;
	for (size_t n = strlen(copy); n > 1 && copy[n - 1] == '/'; n--)
		copy[n - 1] = 0;
	slash = strrchr(copy, '/');
	last = slash ? slash + 1 : copy;
	if (slash == copy)
		dir = strdup("");
	else if (slash)
		*slash = 0, dir = realpath(copy, NULL);
	else
		dir = realpath(".", NULL);
	if (!dir)
		return NULL;
	buf_printf(&out, "%s/%s", dir, last);
	return buf_steal(&out);
}

int mount_prepare(struct options *o)
{
	struct statfs fs;
	struct stat st;
	int err;

	o->mountpoint = resolve(o->given_mountpoint);
	if (!o->mountpoint)
		return complain(o->given_mountpoint,
			errno == ENOENT ? "there is no such directory; make it first" : strerror(errno));
	/* statfs asks the program each time; stat may be answered from what the kernel still has of a dead one. */
	if (statfs(o->mountpoint, &fs) < 0) {
		if (errno != ENOTCONN || !is_ours(o->mountpoint))
			return complain(o->mountpoint, strerror(errno));
		err = mount_detach(o->mountpoint, true); /* its program has died */
		if (err)
			return complain(
				o->mountpoint, "a mount whose program has died is here and cannot be taken away");
	}
	if (stat(o->mountpoint, &st) < 0)
		return complain(o->mountpoint, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return complain(o->mountpoint, "not a directory");
	if (is_ours(o->mountpoint))
		return complain(o->mountpoint, "a sandboxfs is mounted here already; sandboxfs -u ends it");
	if (geteuid() != 0 && access("/dev/fuse", R_OK | W_OK) < 0)
		return complain("/dev/fuse",
			errno == ENOENT ? "there is no FUSE on this machine; modprobe fuse makes it"
							: "closed to this user; its usual mode is 0666 (chmod 0666 /dev/fuse)");
	return 0;
}

static void add(struct buf *b, const char *option)
{
	if (b->size)
		buf_char(b, ',');
	buf_str(b, option);
}

/* A comma or backslash of the source name would end the option. */
static void add_source(struct buf *b, const char *server)
{
	add(b, "subtype=sandboxfs,fsname=");
	for (const char *p = server; *p; p++) {
		if (*p == ',' || *p == '\\')
			buf_char(b, '\\');
		buf_char(b, *p);
	}
}

int mount_make(struct front *f, const struct options *o)
{
	AUTO_BUF list = BUF_INIT;
	int err;

	add(&list, "default_permissions,nosuid,nodev");
	add_source(&list, o->server);
	if (o->ro)
		add(&list, "ro");
	if (o->allow_other || o->allow_root)
		add(&list, "allow_other");
	if (o->auto_unmount)
		add(&list, "auto_unmount");
	if (o->pass)
		add(&list, o->pass);
	if (buf_error(&list))
		return -ENOMEM;
	char *argv[] = {"sandboxfs", "-o", list.data, o->debug ? "-d" : NULL, NULL};
	struct fuse_args args = FUSE_ARGS_INIT(o->debug ? 4 : 3, argv);
	err = front_mount(f, &args, o->mountpoint);
	fuse_opt_free_args(&args);
	return err;
}

/* --- the end --- */

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

static long program_of(const char *mnt)
{
	AUTO_BUF path = BUF_INIT;
	AUTO_FREE char *text = NULL;
	const char *p;

	if (!control_of(mnt, &path))
		return 0;
	buf_str(&path, "/stats");
	text = path.data ? read_file(path.data) : NULL;
	p = text && strncmp(text, "pid ", 4) == 0 ? text : text ? strstr(text, "\npid ") : NULL;
	return p ? strtol(strchr(p, ' '), NULL, 10) : 0;
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
			fprintf(stderr, "sandboxfs: %s: process %s runs\n", name, e->d_name);
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
			fprintf(stderr, "sandboxfs: %s: flush: %s\n", name, strerror(errno));
		free(lines);
		lines = read_file(path.data);
	}
	for (char *p = lines; p && *p;) {
		char *end = strchrnul(p, '\n');
		if (strncmp(p, "conflict ", 9) != 0) {
			fprintf(stderr, "sandboxfs: %s: %.*s\n", name, (int)(end - p), p);
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

/*
 * The mount is gone from here, but another mount namespace may still hold a copy of it, and then the kernel does not end the
 * session: the program is told.
 */
static int wait_for_program(int fd, int64_t limit_ms)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	if (fd < 0)
		return 0;                                               /* it had ended before */
	(void)syscall(SYS_pidfd_send_signal, fd, SIGTERM, NULL, 0); /* ended already is as good */
	return poll(&p, 1, (int)limit_ms) == 1 ? 0 : -ETIMEDOUT;
}

int mount_end(const struct options *o)
{
	AUTO_FREE char *mnt = resolve(o->given_mountpoint);
	long pid;
	int err;

	if (!mnt || !is_ours(mnt)) {
		complain(o->given_mountpoint, "no sandboxfs is mounted here");
		return 1;
	}
	pid = program_of(mnt);
	if (pid && !o->kill && each_ctl(mnt, running_in)) {
		complain(mnt, "processes run; --kill ends them with the mount");
		return 1;
	}
	if (pid && each_ctl(mnt, unsent_in)) {
		complain(mnt, "not unmounted: this is not in the sandbox yet (echo discard all > ctl/ctl "
					  "gives it up)");
		return 1;
	}
	AUTO_FD int program = pid > 0 ? (int)syscall(SYS_pidfd_open, (pid_t)pid, 0) : -1;
	err = mount_detach(mnt, pid == 0);
	if (err) {
		complain(mnt, err == -EBUSY ? "in use: a program has a file or directory of it open"
									: strerror(-err));
		return 1;
	}
	if (wait_for_program(program, o->drain_ms + 10000) < 0) {
		complain(mnt, "unmounted, but its program has not ended");
		return 1;
	}
	return 0;
}
