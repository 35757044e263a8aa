/*
 * See mount.h.
 */
#include "mount.h"

#define FUSE_USE_VERSION 314
#include <errno.h>
#include <fcntl.h>
#include <fuse_lowlevel.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "buf.h"
#include "cleanup.h"
#include "mount_table.h"

extern char **environ;

static int complain(const char *what, const char *why)
{
	fprintf(stderr, "sandboxfs: %s: %s\n", what, why);
	return -EINVAL;
}

/* Opens the directory that path is in, none of it by way of a link: who may rename them must not choose what is unmounted. */
static int open_parent(const char *path, const char **name)
{
	AUTO_FREE char *copy = strdup(path);
	AUTO_FD int dir = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	const char *slash = strrchr(path, '/');
	char *save = NULL;

	if (!copy || !slash)
		return copy ? -EINVAL : -ENOMEM;
	*name = slash + 1;
	copy[slash - path] = 0;
	for (char *w = strtok_r(copy, "/", &save); w && dir >= 0; w = strtok_r(NULL, "/", &save)) {
		int next = openat(dir, w, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		int err = errno;
		close(dir);
		dir = next;
		errno = err;
	}
	return dir < 0 ? -errno : steal_fd(&dir);
}

/* Unmounts what the mount table has at that path, and nothing that has come there since: 0 or a negative errno. */
static int detach_here(const char *path, bool lazy)
{
	struct mount_entry e;
	struct statx st;
	const char *name;
	AUTO_BUF at = BUF_INIT, device = BUF_INIT;

	if (!mount_find(path, &e))
		return -EINVAL;
	AUTO_FD int dir = open_parent(path, &name);
	if (dir < 0)
		return dir;
	/* Asked for nothing, the kernel says the device without asking the mount, which may be dead, or closed to this user. */
	if (statx(dir, name, AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT | AT_STATX_DONT_SYNC, 0, &st) < 0)
		return -errno;
	buf_printf(&device, "%u:%u", st.stx_dev_major, st.stx_dev_minor);
	buf_printf(&at, "/proc/self/fd/%d/%s", dir, name);
	if (buf_error(&device) || buf_error(&at))
		return -ENOMEM;
	if (strcmp(device.data, e.device) != 0)
		return -EINVAL;
	return umount2(at.data, (lazy ? MNT_DETACH : 0) | UMOUNT_NOFOLLOW) == 0 ? 0 : -errno;
}

int mount_detach(const char *mountpoint, bool lazy)
{
	char *argv[] = {"fusermount3", "-u", lazy ? "-zq" : "-q", "--", (char *)mountpoint, NULL};
	int status;
	pid_t pid;
	int err = detach_here(mountpoint, lazy);

	if (err != -EPERM)
		return err;
	if (posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ) != 0)
		return -ENOENT;
	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return WIFEXITED(status) && WEXITSTATUS(status) == 0 ? 0 : -EBUSY;
}

bool mount_is_dead(const char *mountpoint)
{
	struct statfs fs;

	/* statfs asks the program each time; stat may be answered from what the kernel still has of a dead one. */
	return statfs(mountpoint, &fs) < 0 && (errno == ENOTCONN || errno == ECONNABORTED);
}

/*
 * Two that are started at once would both find nothing here, and one mount would hide the other: so a mount is made with the directory
 * locked. Who may not read the directory, or has it where there are no locks, goes without.
 */
static int lock_mountpoint(const char *mountpoint, int *lock)
{
	*lock = open(mountpoint, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (*lock >= 0 && flock(*lock, LOCK_EX | LOCK_NB) < 0 && errno == EWOULDBLOCK)
		return complain(mountpoint, "another sandboxfs is being mounted here at this moment");
	return 0;
}

int mount_prepare(struct options *o, int *lock)
{
	struct stat st;
	struct mount_entry e;
	pid_t pid;
	int err;

	o->mountpoint = mount_resolve(o->given_mountpoint);
	if (!o->mountpoint)
		return complain(o->given_mountpoint,
			errno == ENOENT ? "there is no such directory; make it first" : strerror(errno));
	bool ours = mount_find(o->mountpoint, &e);
	AUTO_FD int program = ours ? mount_program(&e, &pid) : -1;
	if (program >= 0) /* it lives, and may be stuck: it is not asked */
		return complain(o->mountpoint, "a sandboxfs is mounted here already; sandboxfs -u ends it");
	if (ours && mount_is_dead(o->mountpoint)) {
		err = mount_detach(o->mountpoint, true);
		if (err)
			return complain(
				o->mountpoint, "a mount whose program has died is here and cannot be taken away");
	}
	if (stat(o->mountpoint, &st) < 0)
		return complain(o->mountpoint, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return complain(o->mountpoint, "not a directory");
	err = lock_mountpoint(o->mountpoint, lock);
	if (err)
		return err;
	if (mount_find(o->mountpoint, &e))
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
