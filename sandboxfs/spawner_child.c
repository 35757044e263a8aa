/*
 * What a child of the spawner does between fork and exec (spawner_child.h). Owns nothing.
 *
 * All of it is async-signal-safe: the program has threads, and any of them may have held malloc's lock at the moment of the fork.
 */
#include "spawner_child.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <linux/mount.h>
#include <sched.h>
#include <signal.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "cleanup.h"

enum {
	HIGH_FD = 512 /* above every number a child is given */,
	MISC_MAJOR = 10,
	TUN_MINOR = 200,
	FUSE_MINOR = 229
};

static const char *const stages[] = {
	"fork", "private mounts", "limits", "namespaces", "setuid", "prepare", "execve"};
enum stage {
	STAGE_FORK,
	STAGE_MOUNT,
	STAGE_LIMITS,
	STAGE_NS,
	STAGE_UID,
	STAGE_PREPARE,
	STAGE_EXEC
};

const char *spawn_stage(int stage)
{
	return stages[stage];
}

/*
 * What of the host's file tree a staged child keeps, besides the root file system itself. A copy of every mount would keep what
 * is unmounted outside busy for as long as the child lives, our own FUSE mount first of all.
 */
static const struct {
	const char *path;
	unsigned long recursive;
} kept[] = {
	{"/usr", MS_REC},
	{"/bin", MS_REC},
	{"/sbin", MS_REC},
	{"/lib", MS_REC},
	{"/lib32", MS_REC},
	{"/lib64", MS_REC},
	{"/libx32", MS_REC},
	{"/etc", MS_REC},
	{"/proc", 0},
	{"/dev", 0},
	{"/run", 0},
};

/* In a mount namespace of the child's own: a root with what is kept, the working directory in it. */
static int child_root(const struct spawn *w)
{
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0 ||
		mount("tmpfs", w->stage, "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755,size=64k") < 0 ||
		chdir(w->stage) < 0 || mkdir("root", 0755) < 0 ||
		mount("/", "root", NULL, MS_BIND, NULL) < 0 || chdir("root") < 0)
		return -errno;
	for (size_t i = 0; i < sizeof kept / sizeof *kept; i++) {
		struct stat st;
		if (lstat(kept[i].path, &st) < 0 || !S_ISDIR(st.st_mode))
			continue; /* a link, or not there: then it is so in the root as well */
		if (mount(kept[i].path, kept[i].path + 1, NULL, MS_BIND | kept[i].recursive, NULL) < 0)
			return -errno;
	}
	return 0;
}

/* In that root, stage is a tmpfs with the mounts in it. */
static int child_stage(const struct spawn *w)
{
	const char *stage = w->stage + 1;
	if (mount("tmpfs", stage, "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=0755,size=64k") < 0)
		return -errno;
	AUTO_FD int dir = open(stage, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return -errno;
	for (size_t i = 0; i < w->nmounts; i++) {
		const struct spawn_mount *m = &w->mounts[i];
		int made =
			m->directory ? mkdirat(dir, m->name, 0755) : mknodat(dir, m->name, S_IFREG | 0644, 0);
		if (made < 0)
			return -errno;
		/* glibc 2.36 has the wrapper, older ones have not. */
		if (syscall(SYS_move_mount, m->tree, "", dir, m->name, MOVE_MOUNT_F_EMPTY_PATH) < 0)
			return -errno;
	}
	if (w->tun && (mknodat(dir, "tun", S_IFCHR | 0666, makedev(MISC_MAJOR, TUN_MINOR)) < 0 ||
					  fchmodat(dir, "tun", 0666, 0) < 0))
		return -errno;
	if (w->fuse && (mknodat(dir, "fuse", S_IFCHR | 0666, makedev(MISC_MAJOR, FUSE_MINOR)) < 0 ||
					   fchmodat(dir, "fuse", 0666, 0) < 0))
		return -errno;
	return 0;
}

static int child_mounts(const struct spawn *w)
{
	int err = child_root(w);
	if (!err)
		err = child_stage(w);
	if (err)
		return err;
	/* The old root lands on top of the new one, and is taken off. */
	if (syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 ||
		chdir(w->stage) < 0 || (w->tun && mount("tun", "/dev/net/tun", NULL, MS_BIND, NULL) < 0) ||
		(w->fuse && mount("fuse", "/dev/fuse", NULL, MS_BIND, NULL) < 0) || chdir("/") < 0)
		return -errno;
	return 0;
}

static int child_drop(const struct spawn *w)
{
	/* The system calls themselves: glibc's wrappers would signal threads that do not exist here. */
	if (syscall(SYS_setgroups, 0, NULL) < 0 || syscall(SYS_setresgid, w->gid, w->gid, w->gid) < 0 ||
		syscall(SYS_setresuid, w->uid, w->uid, w->uid) < 0)
		return -errno;
	return 0;
}

static int child_namespaces(const struct spawn *w)
{
	if (w->userns >= 0 && setns(w->userns, CLONE_NEWUSER) < 0)
		return -errno;
	if (w->netns >= 0 && setns(w->netns, CLONE_NEWNET) < 0)
		return -errno;
	return 0;
}

static int child_limits(const struct spawn *w)
{
	const struct rlimit none = {0, 0};
	if (setrlimit(RLIMIT_CORE, &none) < 0)
		return -errno;
	if (w->files.rlim_max && setrlimit(RLIMIT_NOFILE, &w->files) < 0)
		return -errno;
	if (w->limit_data) {
		const struct rlimit data = {w->limit_data, w->limit_data};
		if (setrlimit(RLIMIT_DATA, &data) < 0)
			return -errno;
	}
	return 0;
}

/* Gives the descriptors their numbers; everything else closes itself at the exec. */
static int child_fds(const struct spawn *w, int err, int *report)
{
	int moved = fcntl(*report, F_DUPFD_CLOEXEC, HIGH_FD);
	if (moved < 0)
		return -errno;
	*report = moved;
	int cwd = -1, null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null < 0 || (null = fcntl(null, F_DUPFD_CLOEXEC, HIGH_FD)) < 0)
		return -errno;
	if (w->cwd >= 0 && (cwd = fcntl(w->cwd, F_DUPFD_CLOEXEC, HIGH_FD)) < 0)
		return -errno;
	int high[3 + 64];
	if (w->nfds > 64)
		return -E2BIG;
	for (size_t i = 0; i < w->nfds; i++)
		if ((high[i] = fcntl(w->fds[i].from, F_DUPFD_CLOEXEC, HIGH_FD)) < 0)
			return -errno;
	if (err >= 0 && (err = fcntl(err, F_DUPFD_CLOEXEC, HIGH_FD)) < 0)
		return -errno;
	for (int fd = 0; fd < 3; fd++)
		if (dup2(fd == 2 && err >= 0 ? err : null, fd) < 0)
			return -errno;
	int top = 2;
	for (size_t i = 0; i < w->nfds; i++) {
		if (dup2(high[i], w->fds[i].to) < 0)
			return -errno;
		if (w->fds[i].to > top)
			top = w->fds[i].to;
	}
	if (syscall(SYS_close_range, top + 1, ~0U, CLOSE_RANGE_CLOEXEC) < 0)
		return -errno;
	if (cwd >= 0 ? fchdir(cwd) < 0 : chdir("/") < 0)
		return -errno;
	return 0;
}

static int child_prepare(const struct spawn *w, pid_t program)
{
	for (int sig = 1; sig < SIGRTMAX; sig++)
		signal(sig, SIG_DFL); /* those that cannot be set need not be */
	sigset_t none;
	sigemptyset(&none);
	if (sigprocmask(SIG_SETMASK, &none, NULL) < 0 || setsid() < 0)
		return -errno;
	umask(022);
	/* A session keyring is inherited over exec and namespaces: the sandbox must not hold the user's keys. ENOSYS: no keys at all. */
	if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0 && errno != ENOSYS &&
		errno != EPERM)
		return -errno;
	/* After every change of credentials, for each of them clears it. */
	if ((!w->outlives && prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0) ||
		prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	return getppid() == program ? 0 : -ESRCH;
}

/* No exec closes what is not the child's. */
static void child_run(const struct spawn *w)
{
	int top = 2;
	for (size_t i = 0; i < w->nfds; i++)
		if (w->fds[i].to > top)
			top = w->fds[i].to;
	/* The report's pipe too, which says that all went well. */
	if (syscall(SYS_close_range, top + 1, ~0U, 0) < 0)
		_exit(126);
	_exit(w->body(w->body_arg));
}

void spawn_child(const struct spawn *w, int err, int report, pid_t program)
{
	struct spawn_failure f = {STAGE_MOUNT, 0};
	char *const no_environment[] = {NULL};
	if (w->stage)
		f.err = child_mounts(w);
	if (!f.err) {
		f.stage =
			STAGE_PREPARE; /* before the drop: the working directory may be closed to the new uid */
		f.err = child_fds(w, err, &report);
	}
	if (!f.err) {
		f.stage = STAGE_LIMITS;
		f.err = child_limits(w);
	}
	if (!f.err && w->drop) {
		f.stage = STAGE_UID;
		f.err = child_drop(w);
	}
	if (!f.err) {
		f.stage = STAGE_NS;
		f.err = child_namespaces(w);
	}
	if (!f.err) {
		f.stage = STAGE_PREPARE;
		f.err = child_prepare(w, program);
	}
	if (!f.err && w->body)
		child_run(w);
	if (!f.err) {
		f.stage = STAGE_EXEC;
		execve(w->path, w->argv, no_environment);
		f.err = -errno;
	}
	ssize_t n = write(report, &f, sizeof f);
	_exit(n == (ssize_t)sizeof f ? 127 : 126);
}
