/*
 * What children do to give a bucket's mount to a sandbox and to take it away (local.h). Bodies for the spawner: system calls alone,
 * no memory, no locks. Part of the local driver; owns nothing.
 *
 * They run in the outer of bubblewrap's two user namespaces, which owns the sandbox's mounts and s3fs's own mount namespace: uid 0
 * there is the sandbox's uid, with every capability over both, and none on the host. The sandbox is in the inner one and
 * has none at all: it cannot mount, and what it can do meanwhile is to rename and replace directories. Hence the way to a directory is
 * taken component by component through descriptors and never through a link, and the mount is set upon the descriptor.
 *
 * The root of a sandbox is a tmpfs that is mounted read-only. A directory is made there through a second, detached mount of it
 * that can be written and that no process of the sandbox ever has: it is never writable for those.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/mount.h>
#include <sched.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "local.h"

/* Of the kernel's answer to getdents64. */
struct entry {
	uint64_t ino;
	int64_t off;
	unsigned short length;
	unsigned char type;
	char name[];
};

static int copy_of_mount(const char *path)
{
	return (int)syscall(SYS_open_tree, AT_FDCWD, path, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
}

static int set_mount(int tree, uint64_t set, uint64_t clear)
{
	struct mount_attr attr = {.attr_set = set, .attr_clr = clear};
	return syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH, &attr, sizeof attr) < 0 ? -errno : 0;
}

/* How many names a directory has, `.` and `..` among them, as far as one answer tells. */
static int count_names(int dir)
{
	_Alignas(struct entry) char names[4096];
	int n = 0;
	long size = syscall(SYS_getdents64, dir, names, sizeof names);
	if (size < 0)
		return -errno;
	for (long at = 0; at < size; n++)
		at += ((struct entry *)(void *)(names + at))->length;
	return n;
}

/* s3fs answers here when it has spoken to the store: with what it was told there. */
static int list_once(struct bucket_attached *r)
{
	int dir = open(BUCKET_PLACE, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return -errno;
	struct stat st;
	int err = fstat(dir, &st) < 0 ? -errno : count_names(dir);
	close(dir);
	if (err < 0)
		return err;
	r->major = major(st.st_dev);
	r->minor = minor(st.st_dev);
	return 0;
}

/* Cuts the next component off *path: its length, 0 at the end. */
static size_t component(const char **path, char name[NAME_MAX + 1])
{
	while (**path == '/')
		(*path)++;
	size_t n = strcspn(*path, "/");
	if (n > NAME_MAX)
		n = NAME_MAX; /* no such path is accepted */
	memcpy(name, *path, n);
	name[n] = 0;
	*path += n;
	return n;
}

static int enter(int dir, const char *name)
{
	int next = openat(dir, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return next < 0 ? -errno : next;
}

static bool same_directory(int a, int b)
{
	struct stat sa, sb;
	return fstat(a, &sa) == 0 && fstat(b, &sb) == 0 && sa.st_dev == sb.st_dev &&
		   sa.st_ino == sb.st_ino;
}

/* The directory, made with those above it where they are missing: a descriptor or a negative errno. */
static int make_way(const char *path)
{
	char name[NAME_MAX + 1];
	int at = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	int twin = copy_of_mount(
		"/"); /* the same directory as at, as long as the way stays in the root's file system */
	if (at < 0 || twin < 0)
		return -errno;
	int err = set_mount(twin, 0, MOUNT_ATTR_RDONLY);
	while (!err && component(&path, name)) {
		int next = enter(at, name);
		if (next == -ENOENT && mkdirat(at, name, 0755) < 0 && errno != EEXIST) {
			err = -errno;
			if (err == -EROFS && same_directory(at, twin))
				err = mkdirat(twin, name, 0755) < 0 && errno != EEXIST ? -errno : 0;
		}
		if (next == -ENOENT && !err)
			next = enter(at, name);
		if (next < 0)
			return err ? err : next;
		close(at);
		at = next;
		int follow = enter(twin, name);
		if (follow >= 0) {
			close(twin);
			twin = follow;
		}
	}
	close(twin);
	return err ? err : at;
}

static int attach(const struct bucket_attach *a, struct bucket_attached *r)
{
	r->step = BUCKET_STEP_LIST;
	if (setns(BUCKET_CHILD_MOUNTS, CLONE_NEWNS) < 0)
		return -errno;
	int err = list_once(r);
	if (err)
		return err;
	r->step = BUCKET_STEP_TAKE;
	int tree = copy_of_mount(BUCKET_PLACE);
	if (tree < 0)
		return -errno;
	err = set_mount(
		tree, MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | (a->read_only ? MOUNT_ATTR_RDONLY : 0), 0);
	if (err)
		return err;
	/* From now on the end of the one in the sandbox is the end of the file system, and of s3fs. */
	if (umount2(BUCKET_PLACE, MNT_DETACH) < 0)
		return -errno;
	r->step = BUCKET_STEP_DIR;
	if (setns(BUCKET_CHILD_BOX, CLONE_NEWNS) < 0)
		return -errno;
	int dir = make_way(a->dir);
	if (dir < 0)
		return dir;
	r->step = BUCKET_STEP_FILLED;
	int list = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int names = list < 0 ? -errno : count_names(list);
	if (names > 2)
		return -ENOTEMPTY;
	if (names < 0)
		return names;
	close(list);
	r->step = BUCKET_STEP_PUT;
	return syscall(SYS_move_mount, tree, "", dir, "",
			   MOVE_MOUNT_F_EMPTY_PATH | MOVE_MOUNT_T_EMPTY_PATH) < 0
			   ? -errno
			   : 0;
}

int bucket_attach_body(void *arg)
{
	struct bucket_attached r = {0};
	r.err = attach(arg, &r);
	ssize_t n = write(BUCKET_CHILD_RESULT, &r, sizeof r);
	return n == (ssize_t)sizeof r ? 0 : 1;
}

int bucket_detach_body(void *arg)
{
	const char *path = arg;
	char name[NAME_MAX + 1], next[NAME_MAX + 1];
	if (setns(BUCKET_CHILD_MOUNTS, CLONE_NEWNS) < 0)
		return errno;
	int at = open("/", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (at < 0)
		return errno;
	component(&path, name);
	while (component(&path, next)) {
		at = enter(at, name); /* those before stay open to the end, which is near */
		if (at < 0)
			return -at;
		memcpy(name, next, sizeof name);
	}
	if (fchdir(at) < 0)
		return errno;
	close(at);
	/* The working directory keeps what it is in busy, not what is mounted upon it. */
	return umount2(name, UMOUNT_NOFOLLOW) < 0 ? errno : 0;
}
