/*
 * The threads that read requests.
 *
 * A thread that has read a request first makes sure that another one reads on (it starts one if
 * none waits), then handles the request itself. So a handler may wait for the network as long as it
 * likes, and nothing is handed from thread to thread. Threads beyond a few idle ones end.
 *
 * If none waits and none can be started (a limit of the user's, no memory), the thread is alone: it handles the request
 * with a call that never waits, so that whatever needs no server is answered, the rest fails with ENOMEM, and the
 * requests on which the others wait (an interrupt, a release, the answer's reader) are still read.
 *
 * SIGUSR1 (with a handler that does nothing and no SA_RESTART, set by main) wakes a blocked reader.
 *
 * libfuse's own loop does the same, but joins its threads before anybody can tell
 * the waiting handlers that the mount has ended.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"
#include "log.h"
#include "op_impl.h"
#include "timed.h"

enum { IDLE_THREADS = 8, STACK_SIZE = 512 * 1024, WAKE_AGAIN_MS = 1000 };

struct worker {
	pthread_t thread;
	struct worker *next;
};

struct loop {
	struct fuse_session *se;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	struct worker *workers; /* every thread alive takes itself out */
	unsigned threads;       /* their number */
	unsigned reading;       /* of these wait for a request */
	unsigned max_threads;
	bool alone;             /* one thread handles a request and none reads on */
	pthread_t alone_thread; /* that one */
	bool short_of_threads;  /* the last start of a thread failed, and that was logged */
	bool ended;             /* the session is over */
	int err;
	pthread_attr_t attr;
};

static void *loop_thread(void *arg);

/* Called with the lock held. */
static int start_thread(struct loop *l)
{
	pthread_t t;
	int err = pthread_create(&t, &l->attr, loop_thread, l);

	if (err) {
		if (!l->short_of_threads)
			log_error(
				"a thread could not be started: %s; what must wait fails with ENOMEM meanwhile",
				strerror(err));
		l->short_of_threads = true;
		return -err;
	}
	l->short_of_threads = false;
	l->threads++;
	l->reading++;
	return 0;
}

/* A request was read: sees to it that another thread reads on, or notes that none does. */
static void note_request(struct loop *l)
{
	AUTO_UNLOCK(&l->lock);

	l->reading--;
	if (l->reading > 0 || l->ended)
		return;
	if (l->threads >= l->max_threads || start_thread(l) < 0) {
		l->alone = true;
		l->alone_thread = pthread_self();
	}
}

/* It has been handled. Is the thread to read the next? */
static bool note_handled(struct loop *l)
{
	AUTO_UNLOCK(&l->lock);

	if (l->alone && pthread_equal(l->alone_thread, pthread_self()))
		l->alone = false;
	/* One that leaves is not counted any more: the last reader must not rely on it. */
	if (l->reading >= IDLE_THREADS || l->ended)
		return false;
	l->reading++;
	return true;
}

static void note_end(struct loop *l, int err)
{
	/* Not fuse_session_exit: with it libfuse drops a request that a thread has just read, and its caller waits for ever. */
	pthread_mutex_lock(&l->lock);
	if (!l->ended) {
		l->ended = true;
		l->err = err;
	}
	pthread_cond_broadcast(&l->changed);
	pthread_mutex_unlock(&l->lock);
}

static bool has_ended(struct loop *l)
{
	AUTO_UNLOCK(&l->lock);
	return l->ended;
}

static void *loop_thread(void *arg)
{
	struct loop *l = arg;
	struct fuse_buf buf = {.mem = NULL};
	struct worker self = {.thread = pthread_self()};
	bool stay = true;

	pthread_mutex_lock(&l->lock);
	self.next = l->workers;
	l->workers = &self;
	pthread_mutex_unlock(&l->lock);
	while (stay && !has_ended(l)) {
		int n = fuse_session_receive_buf(l->se, &buf);

		if (n == -EINTR)
			continue;
		if (n <= 0) {
			note_end(l, n == -ENODEV ? 0 : n);
			break;
		}
		note_request(l);
		fuse_session_process_buf(l->se, &buf);
		stay = note_handled(l);
	}
	free(buf.mem);
	pthread_mutex_lock(&l->lock);
	for (struct worker **w = &l->workers; *w; w = &(*w)->next) {
		if (*w == &self) {
			*w = self.next;
			break;
		}
	}
	l->threads--;
	l->reading -= stay; /* it ended as a reader */
	pthread_cond_broadcast(&l->changed);
	pthread_mutex_unlock(&l->lock);
	return NULL;
}

int loop_new(struct fuse_session *se, unsigned max_threads, struct loop **out)
{
	struct loop *l = calloc(1, sizeof *l);

	if (!l)
		return -ENOMEM;
	l->se = se;
	l->max_threads = max_threads;
	pthread_mutex_init(&l->lock, NULL);
	int err = timed_cond_init(&l->changed);
	if (err) {
		free(l);
		return err;
	}
	pthread_attr_init(&l->attr);
	pthread_attr_setstacksize(&l->attr, STACK_SIZE);
	pthread_attr_setdetachstate(&l->attr, PTHREAD_CREATE_DETACHED);
	*out = l;
	return 0;
}

int loop_run(struct loop *l, void (*ended)(void *arg), void *arg)
{
	int err;

	pthread_mutex_lock(&l->lock);
	err = start_thread(l);
	while (!err && !l->ended)
		pthread_cond_wait(&l->changed, &l->lock);
	l->ended = true;
	pthread_mutex_unlock(&l->lock);
	ended(arg);
	pthread_mutex_lock(&l->lock);
	while (l->threads) {
		/* A thread in read(2) on a mount that is still busy hears of the end by a signal only. */
		for (struct worker *w = l->workers; w; w = w->next)
			pthread_kill(w->thread, SIGUSR1);
		/* looked at again whatever ended the wait */
		(void)timed_cond_wait(&l->changed, &l->lock, call_now_ms() + WAKE_AGAIN_MS);
	}
	if (!err)
		err = l->err;
	pthread_mutex_unlock(&l->lock);
	return err;
}

unsigned loop_threads(struct loop *l)
{
	AUTO_UNLOCK(&l->lock);
	return l->threads;
}

bool loop_is_alone(struct loop *l)
{
	AUTO_UNLOCK(&l->lock);
	return l->alone && pthread_equal(l->alone_thread, pthread_self());
}

void loop_stop(struct loop *l)
{
	note_end(l, 0);
}

void loop_free(struct loop *l)
{
	if (!l)
		return;
	pthread_attr_destroy(&l->attr);
	pthread_cond_destroy(&l->changed);
	pthread_mutex_destroy(&l->lock);
	free(l);
}
