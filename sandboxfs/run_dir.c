/*
 * The private directory of a program's sockets, below $XDG_RUNTIME_DIR or /tmp: 0700, a short path (a socket's address has room for 107 bytes),
 * locked while the program lives, so that the next one can tell a leftover of a crash and remove it.
 */
#include "run_dir.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "cleanup.h"
#include "log.h"

enum {
	BACKLOG = 256,
	BASE_LONGEST = 75 /* with what follows it is below 107 */,
	YOUNG_SECONDS = 60
};

static const char prefix[] = "sandboxfs-";

static const char *run_base(void)
{
	const char *base = getenv("XDG_RUNTIME_DIR");
	struct stat st;
	if (base && *base == '/' && strlen(base) <= BASE_LONGEST && stat(base, &st) == 0 &&
		S_ISDIR(st.st_mode) && st.st_uid == geteuid() && access(base, W_OK | X_OK) == 0)
		return base;
	return "/tmp";
}

static int lock_now(int fd)
{
	struct flock all = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	return fcntl(fd, F_OFD_SETLK, &all) < 0 ? -errno : 0;
}

/* Removes sockets and lock of a directory whose program is gone. Only plain names of ours; what else is there stays. */
static void remove_run_dir(int base, const char *name)
{
	AUTO_FD int dir = openat(base, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	struct stat st;
	if (dir < 0 || fstat(dir, &st) < 0 || st.st_uid != geteuid() || st.st_mode & 077)
		return;
	AUTO_FD int lock = openat(dir, "lock", O_RDWR | O_NOFOLLOW | O_CLOEXEC);
	if (lock < 0 && (errno != ENOENT || time(NULL) - st.st_mtime < YOUNG_SECONDS))
		return; /* perhaps just being made */
	if (lock >= 0 && lock_now(lock) < 0)
		return;
	AUTO_FD int again = dup(dir);
	DIR *d = again < 0 ? NULL : fdopendir(again);
	if (!d)
		return;
	steal_fd(&again);
	for (struct dirent *e; (e = readdir(d));) {
		struct stat entry;
		if (fstatat(dir, e->d_name, &entry, AT_SYMLINK_NOFOLLOW) == 0 && S_ISSOCK(entry.st_mode))
			unlinkat(dir, e->d_name, 0); /* what fails here makes the rmdir fail */
	}
	closedir(d);
	unlinkat(dir, "lock", 0);
	if (unlinkat(base, name, AT_REMOVEDIR) == 0)
		log_info("removed %s, left by a program that died", name);
}

static void remove_leftovers(const char *base)
{
	DIR *d = opendir(base);
	if (!d)
		return;
	for (struct dirent *e; (e = readdir(d));)
		if (!strncmp(e->d_name, prefix, sizeof prefix - 1))
			remove_run_dir(dirfd(d), e->d_name);
	closedir(d);
}

int run_dir_open(struct run_dir *r, struct call *c)
{
	const char *base = run_base();
	remove_leftovers(base);
	AUTO_BUF path = BUF_INIT;
	buf_printf(&path, "%s/%sXXXXXX", base, prefix);
	r->path = buf_steal(&path);
	if (!r->path)
		return -ENOMEM;
	if (!mkdtemp(r->path)) {
		int err = errno;
		free(steal(r->path));
		return call_fault(
			c, err, NULL, "cannot make a directory for sockets in %s: %s", base, strerror(err));
	}
	AUTO_FD int dir = open(r->path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	AUTO_FD int lock =
		dir < 0 ? -1 : openat(dir, "lock", O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	int err = lock < 0 ? -errno : lock_now(lock);
	if (err) {
		rmdir(r->path); /* fails where the lock file was made: the next program removes both */
		free(steal(r->path));
		return call_fault(
			c, -err, NULL, "cannot lock a directory for sockets in %s: %s", base, strerror(-err));
	}
	r->lock = steal_fd(&lock);
	return 0;
}

void run_dir_close(struct run_dir *r)
{
	if (!r->path)
		return;
	AUTO_FD int dir = open(r->path, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (dir >= 0)
		unlinkat(dir, "lock", 0);
	if (rmdir(r->path) < 0)
		log_info("%s: cannot be removed: %s", r->path, strerror(errno));
	free(steal(r->path));
	if (r->lock >= 0)
		close(steal_fd(&r->lock));
}

int run_dir_listen(struct run_dir *r, struct call *c, char **path, int *fd)
{
	unsigned number = atomic_fetch_add(&r->sockets, 1) + 1;
	AUTO_BUF b = BUF_INIT;
	buf_printf(&b, "%s/%u", r->path, number);
	struct sockaddr_un address = {.sun_family = AF_UNIX};
	if (buf_error(&b))
		return -ENOMEM;
	if (b.size >= sizeof address.sun_path)
		return -ENAMETOOLONG;
	memcpy(address.sun_path, b.data, b.size);
	AUTO_FD int s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (s < 0 || bind(s, (struct sockaddr *)&address, sizeof address) < 0 || listen(s, BACKLOG) < 0)
		return call_fault(c, errno, NULL, "cannot listen on %s: %s", b.data, strerror(errno));
	*path = buf_steal(&b);
	*fd = steal_fd(&s);
	return 0;
}
