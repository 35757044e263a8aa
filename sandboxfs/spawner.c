/*
 * The spawner (spawner.h): the thread, its queue of starts, the table of children.
 *
 * Locks: spawner.lock covers the queue, the list, and every field of a child that is not constant. It is not held over
 * fork, waitid or a callback. What runs between fork and exec is async-signal-safe: the program has threads, and any of them may have held
 * malloc's lock at the moment of the fork.
 */
#include "spawner.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <linux/mount.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"

enum {
	OUTPUT_KEPT = 4096,
	HIGH_FD = 512, /* above every number a child is given */
	TUN_MAJOR = 10,
	TUN_MINOR = 200
};

struct child {
	struct spawner *owner;
	struct child *next; /* of the spawner's list */
	pid_t pid;
	int pidfd;
	int refs;          /* owner's lock: the list's one and the users' */
	int err;           /* read end of its stderr; the thread's alone; -1: none or at its end */
	struct buf output; /* owner's lock */
	bool ended;        /* owner's lock */
	int status;        /* owner's lock; valid when ended */
	void (*on_exit)(void *arg);
	void *arg;
};

struct request {
	const struct spawn *what;
	struct child *child;
	int result;
	const char *stage;
	bool done;
	struct request *next;
};

struct spawner {
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed; /* CLOCK_MONOTONIC: a request is done, a child has ended */
	int wake;               /* eventfd */
	bool stopping;          /* lock */
	int refs;               /* lock: the spawner_new one and one per child record */
	struct request *queue;  /* lock */
	struct child *children; /* lock; changed by the thread alone */
};

/* --- between fork and exec --- */

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

struct failure {
	int stage;
	int err;
};

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
	return w->tun && (mknodat(dir, "tun", S_IFCHR | 0666, makedev(TUN_MAJOR, TUN_MINOR)) < 0 ||
						 fchmodat(dir, "tun", 0666, 0) < 0)
			   ? -errno
			   : 0;
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
		chdir("/") < 0)
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

static int child_prepare(pid_t program)
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
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return -errno;
	return getppid() == program ? 0 : -ESRCH;
}

static void child_run(const struct spawn *w, int err, int report, pid_t program)
	__attribute__((noreturn));
static void child_run(const struct spawn *w, int err, int report, pid_t program)
{
	struct failure f = {STAGE_MOUNT, 0};
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
		f.err = child_prepare(program);
	}
	if (!f.err) {
		f.stage = STAGE_EXEC;
		execve(w->path, w->argv, no_environment);
		f.err = -errno;
	}
	ssize_t n = write(report, &f, sizeof f);
	_exit(n == (ssize_t)sizeof f ? 127 : 126);
}

/* --- the thread --- */

static int fork_child(const struct spawn *w, struct child *c, const char **stage)
{
	int report[2] = {-1, -1}, err[2] = {-1, -1};
	*stage = stages[STAGE_FORK];
	if (pipe2(report, O_CLOEXEC) < 0)
		return -errno;
	AUTO_FD int report_in = report[0];
	AUTO_FD int report_out = report[1];
	if (w->collect && pipe2(err, O_CLOEXEC) < 0)
		return -errno;
	AUTO_FD int err_in = err[0];
	AUTO_FD int err_out = err[1];
	if (err_in >= 0 && fcntl(err_in, F_SETFL, O_NONBLOCK) < 0)
		return -errno;
	pid_t program = getpid();
	pid_t pid = fork();
	if (pid < 0)
		return -errno;
	if (pid == 0)
		child_run(w, err_out, report_out, program);
	close(steal_fd(&report_out));
	struct failure f = {STAGE_FORK, 0};
	ssize_t n;
	do
		n = read(report_in, &f, sizeof f); /* ends with the exec */
	while (n < 0 && errno == EINTR);
	int pidfd = n == 0 ? pidfd_open(pid, 0) : -1;
	if (pidfd < 0) {
		int result = n == (ssize_t)sizeof f ? f.err : n == 0 ? -errno : -EIO;
		if (n == 0)
			kill(pid, SIGKILL);
		while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
			;
		*stage = stages[f.stage];
		return result;
	}
	c->pid = pid;
	c->pidfd = pidfd;
	c->err = steal_fd(&err_in);
	return 0;
}

static void child_release(struct child *c) /* owner's lock held, which it gives up */
{
	struct spawner *s = c->owner;
	bool last = --c->refs == 0, last_of_all = false;
	if (last)
		last_of_all = --s->refs == 0;
	pthread_mutex_unlock(&s->lock);
	if (!last)
		return;
	if (c->pidfd >= 0)
		close(c->pidfd);
	if (c->err >= 0)
		close(c->err);
	buf_release(&c->output);
	free(c);
	if (last_of_all) {
		pthread_mutex_destroy(&s->lock);
		pthread_cond_destroy(&s->changed);
		close(s->wake);
		free(s);
	}
}

static void serve_queue(struct spawner *s)
{
	for (;;) {
		pthread_mutex_lock(&s->lock);
		struct request *r = s->queue;
		if (r)
			s->queue = r->next;
		pthread_mutex_unlock(&s->lock);
		if (!r)
			return;
		int result = fork_child(r->what, r->child, &r->stage);
		AUTO_UNLOCK(&s->lock);
		r->result = result;
		r->done = true;
		if (!result) {
			r->child->refs++;
			r->child->next = s->children;
			s->children = r->child;
		}
		pthread_cond_broadcast(&s->changed);
	}
}

/* Takes what there is to read; false when nothing will come any more. */
static bool drain(struct child *c)
{
	char chunk[4096];
	for (;;) {
		ssize_t n = read(c->err, chunk, sizeof chunk);
		if (n < 0)
			return errno == EAGAIN || errno == EINTR;
		if (n == 0)
			return false;
		AUTO_UNLOCK(&c->owner->lock);
		buf_add(&c->output, chunk, (size_t)n);
		if (c->output.size > OUTPUT_KEPT)
			buf_consume(&c->output, c->output.size - OUTPUT_KEPT);
	}
}

static void close_err(struct child *c)
{
	close(c->err);
	c->err = -1;
}

/* Reaps c if it has ended, and takes it off the list. */
static void reap(struct child *c)
{
	struct spawner *s = c->owner;
	int status = 0;
	pid_t pid = waitpid(c->pid, &status, WNOHANG);
	if (pid == 0 || (pid < 0 && errno == EINTR))
		return; /* not yet */
	if (c->err >= 0) {
		drain(c);
		close_err(c);
	}
	if (c->on_exit)
		c->on_exit(c->arg);
	pthread_mutex_lock(&s->lock);
	for (struct child **at = &s->children; *at; at = &(*at)->next)
		if (*at == c) {
			*at = c->next;
			break;
		}
	c->ended = true;
	c->status = pid > 0 ? status : 0; /* ECHILD: somebody set SIGCHLD to be ignored */
	pthread_cond_broadcast(&s->changed);
	child_release(c);
}

/* Children with something to tell, one poll entry for each of their two descriptors. */
static int watch(struct spawner *s)
{
	size_t n = 0;
	pthread_mutex_lock(&s->lock);
	for (struct child *c = s->children; c; c = c->next)
		n++;
	pthread_mutex_unlock(&s->lock); /* only this thread changes the list */
	AUTO_FREE struct pollfd *fds = calloc(1 + 2 * n, sizeof *fds);
	AUTO_FREE struct child **who = calloc(n + 1, sizeof(*who));
	if (!fds || !who)
		return -ENOMEM;
	fds[0] = (struct pollfd){s->wake, POLLIN, 0};
	size_t i = 0;
	for (struct child *c = s->children; c; c = c->next, i++) {
		who[i] = c;
		fds[1 + 2 * i] = (struct pollfd){c->pidfd, POLLIN, 0};
		fds[2 + 2 * i] = (struct pollfd){c->err, POLLIN, 0};
	}
	if (poll(fds, 1 + 2 * n, -1) < 0)
		return errno == EINTR ? 0 : -errno;
	uint64_t count;
	if (fds[0].revents && read(s->wake, &count, sizeof count) < 0 && errno != EAGAIN)
		return -errno;
	for (i = 0; i < n; i++) {
		if (fds[2 + 2 * i].revents && !drain(who[i]))
			close_err(who[i]);
		if (fds[1 + 2 * i].revents)
			reap(who[i]);
	}
	return 0;
}

static void *spawner_main(void *arg)
{
	struct spawner *s = arg;
	for (;;) {
		serve_queue(s);
		pthread_mutex_lock(&s->lock);
		bool over = s->stopping && !s->children && !s->queue;
		pthread_mutex_unlock(&s->lock);
		if (over)
			return NULL;
		if (watch(s) == -ENOMEM)
			sched_yield(); /* memory may come back; children must still be reaped */
	}
}

static void wake(struct spawner *s)
{
	const uint64_t one = 1;
	ssize_t n = write(s->wake, &one, sizeof one);
	(void)n; /* a full eventfd wakes as well */
}

/* --- what others call --- */

int spawner_new(struct spawner **out)
{
	struct spawner *s = calloc(1, sizeof *s);
	if (!s)
		return -ENOMEM;
	s->refs = 1;
	s->wake = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (s->wake < 0) {
		int err = -errno;
		free(s);
		return err;
	}
	pthread_condattr_t monotonic;
	pthread_condattr_init(&monotonic);
	pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
	pthread_mutex_init(&s->lock, NULL);
	pthread_cond_init(&s->changed, &monotonic);
	pthread_condattr_destroy(&monotonic);
	/* Signals are for main's thread. */
	sigset_t all, old;
	sigfillset(&all);
	pthread_sigmask(SIG_BLOCK, &all, &old);
	int err = pthread_create(&s->thread, NULL, spawner_main, s);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (err) {
		pthread_mutex_destroy(&s->lock);
		pthread_cond_destroy(&s->changed);
		close(s->wake);
		free(s);
		return -err;
	}
	*out = s;
	return 0;
}

void spawner_free(struct spawner *s)
{
	if (!s)
		return;
	pthread_mutex_lock(&s->lock);
	s->stopping = true;
	for (struct child *c = s->children; c; c = c->next)
		pidfd_send_signal(c->pidfd, SIGKILL, NULL, 0);
	pthread_mutex_unlock(&s->lock);
	wake(s);
	pthread_join(s->thread, NULL);
	pthread_mutex_lock(&s->lock);
	bool last = --s->refs == 0;
	pthread_mutex_unlock(&s->lock);
	if (!last)
		return; /* the last child_put frees it */
	pthread_mutex_destroy(&s->lock);
	pthread_cond_destroy(&s->changed);
	close(s->wake);
	free(s);
}

int spawner_start(
	struct spawner *s, const struct spawn *what, struct child **out, const char **stage)
{
	struct child *c = calloc(1, sizeof *c);
	if (!c)
		return -ENOMEM;
	*c = (struct child){
		.owner = s, .pidfd = -1, .err = -1, .refs = 1, .on_exit = what->on_exit, .arg = what->arg};
	struct request r = {.what = what, .child = c};
	pthread_mutex_lock(&s->lock);
	s->refs++;
	struct request **at = &s->queue;
	while (*at)
		at = &(*at)->next;
	*at = &r;
	pthread_mutex_unlock(&s->lock);
	wake(s);
	pthread_mutex_lock(&s->lock);
	while (!r.done)
		pthread_cond_wait(&s->changed, &s->lock); /* as long as a fork and an exec take */
	pthread_mutex_unlock(&s->lock);
	if (stage)
		*stage = r.stage;
	if (r.result) {
		child_put(c);
		return r.result;
	}
	*out = c;
	return 0;
}

void child_put(struct child *c)
{
	if (!c)
		return;
	pthread_mutex_lock(&c->owner->lock);
	child_release(c);
}

pid_t child_pid(const struct child *c)
{
	return c->pid;
}

void child_signal(struct child *c, int sig)
{
	pidfd_send_signal(c->pidfd, sig, NULL, 0); /* ESRCH: it has ended */
}

bool child_ended(struct child *c)
{
	AUTO_UNLOCK(&c->owner->lock);
	return c->ended;
}

int child_wait(struct child *c, int64_t deadline_ms, int *status)
{
	struct spawner *s = c->owner;
	const struct timespec until = {deadline_ms / 1000, deadline_ms % 1000 * 1000000};
	AUTO_UNLOCK(&s->lock);
	while (!c->ended) {
		int err = deadline_ms < 0 ? pthread_cond_wait(&s->changed, &s->lock)
								  : pthread_cond_timedwait(&s->changed, &s->lock, &until);
		if (err == ETIMEDOUT && !c->ended)
			return -ETIMEDOUT;
	}
	if (status)
		*status = c->status;
	return 0;
}

void child_output(struct child *c, struct buf *out)
{
	AUTO_UNLOCK(&c->owner->lock);
	if (c->output.size)
		buf_add(out, c->output.data, c->output.size);
}
