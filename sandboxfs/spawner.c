/*
 * The spawner (spawner.h): the thread, its queue of starts, the table of children.
 *
 * Locks: spawner.lock covers the queue, the list, and every field of a child that is not constant. It is not held over
 * fork, waitid or a callback.
 */
#include "spawner.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cleanup.h"
#include "spawner_child.h"
#include "timed.h"

enum { OUTPUT_KEPT = 4096 };

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

/* --- the thread --- */

static int fork_child(const struct spawn *w, struct child *c, const char **stage)
{
	int report[2] = {-1, -1}, err[2] = {-1, -1};
	*stage = spawn_stage(0);
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
		spawn_child(w, err_out, report_out, program);
	close(steal_fd(&report_out));
	struct spawn_failure f = {0, 0};
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
		*stage = spawn_stage(f.stage);
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
	siginfo_t end = {0};
	int err = waitid(P_PID, (id_t)c->pid, &end, WEXITED | WNOHANG | WNOWAIT);
	if (err < 0 ? errno == EINTR : end.si_pid == 0)
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
	/* Of its group nothing outlives it. Until it is reaped, nobody else can have its number. */
	if (err == 0)
		kill(-c->pid, SIGKILL);
	c->ended = true;
	/* ECHILD: somebody set SIGCHLD to be ignored */
	c->status = waitpid(c->pid, &status, 0) > 0 ? status : 0;
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
	pthread_mutex_init(&s->lock, NULL);
	(void)timed_cond_init(&s->changed); /* CLOCK_MONOTONIC is always there */
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
		kill(-c->pid, SIGKILL); /* on the list: not reaped */
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

struct child *child_get(struct child *c)
{
	AUTO_UNLOCK(&c->owner->lock);
	c->refs++;
	return c;
}

void child_put(struct child *c)
{
	if (!c)
		return;
	pthread_mutex_lock(&c->owner->lock);
	child_release(c);
}

void child_signal(struct child *c, int sig)
{
	pidfd_send_signal(c->pidfd, sig, NULL, 0); /* ESRCH: it has ended */
}

void child_kill_group(struct child *c)
{
	AUTO_UNLOCK(&c->owner->lock);
	if (!c->ended)
		kill(-c->pid, SIGKILL); /* ESRCH: as good */
}

bool child_ended(struct child *c)
{
	AUTO_UNLOCK(&c->owner->lock);
	return c->ended;
}

int child_wait(struct child *c, int64_t deadline_ms, int *status)
{
	struct spawner *s = c->owner;
	AUTO_UNLOCK(&s->lock);
	while (!c->ended)
		if (timed_cond_wait(&s->changed, &s->lock, deadline_ms) == -ETIMEDOUT && !c->ended)
			return -ETIMEDOUT;
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
