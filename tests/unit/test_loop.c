/* links: sandboxfs/loop.c sandboxfs/call.c sandboxfs/log.c contrib/common/buf.c */
/* The threads that read requests, over a session made here: whatever waits, somebody reads on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "op_impl.h"

enum { BURST = 24, ROUNDS = 400, MEMORY = 1 << 20, LIMIT_S = 20 };

enum request { NOTHING, QUICK, WAITS, OPENS };

/* What the kernel would have: requests to be read, and the gate at which some of them wait. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static unsigned asked[OPENS + 1], opens, done, entered, gate;
static bool over;

/* --- libfuse, as far as loop.c knows it --- */

int fuse_session_receive_buf(struct fuse_session *se, struct fuse_buf *buf)
{
	enum request r = NOTHING;

	(void)se;
	if (!buf->mem) {
		buf->mem = malloc(MEMORY);
		memset(buf->mem, 1, MEMORY); /* so that giving it back takes its time */
	}
	pthread_mutex_lock(&lock);
	while (!over && r == NOTHING) {
		for (r = OPENS; r > NOTHING && !asked[r]; r--)
			;
		if (r == NOTHING)
			pthread_cond_wait(&changed, &lock);
	}
	if (r != NOTHING)
		asked[r]--;
	pthread_mutex_unlock(&lock);
	*(char *)buf->mem = (char)r;
	return r == NOTHING ? -ENODEV : 1;
}

void fuse_session_process_buf(struct fuse_session *se, const struct fuse_buf *buf)
{
	enum request r = (enum request) * (char *)buf->mem;

	(void)se;
	pthread_mutex_lock(&lock);
	unsigned need = opens + 1; /* the next that is asked */
	entered += r == WAITS;
	gate += r == OPENS;
	pthread_cond_broadcast(&changed);
	while (r == WAITS && gate < need && !over)
		pthread_cond_wait(&changed, &lock);
	done++;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

/* --- the test --- */

/* The session has ended: nothing is read any more. */
static void ended(void *arg)
{
	(void)arg;
	pthread_mutex_lock(&lock);
	over = true;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

static void *serve(void *arg)
{
	assert_int_equal(loop_run(arg, ended, NULL), 0);
	return NULL;
}

static void ask(enum request r, unsigned n)
{
	pthread_mutex_lock(&lock);
	asked[r] += n;
	opens += r == OPENS ? n : 0;
	pthread_cond_broadcast(&changed);
	pthread_mutex_unlock(&lock);
}

/* False: *what did not come to n in time. */
static bool await(const unsigned *what, unsigned n)
{
	struct timespec until;
	int err = 0;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += LIMIT_S;
	pthread_mutex_lock(&lock);
	while (*what != n && !err)
		err = pthread_cond_timedwait(&changed, &lock, &until);
	pthread_mutex_unlock(&lock);
	return err == 0;
}

/* All that waited come back at once, most of their threads end, and at that moment more is asked than those that stay can take. */
static void threads_that_end_leave_a_reader_behind(void **state)
{
	struct loop *l;
	pthread_t t;
	unsigned want = 0;

	(void)state;
	assert_int_equal(loop_new(NULL, 1000, &l), 0);
	assert_int_equal(pthread_create(&t, NULL, serve, l), 0);
	for (int round = 0; round < ROUNDS; round++) {
		for (int half = 0; half < 2; half++) {
			ask(WAITS, BURST);
			assert_true(await(&entered, want += BURST));
			ask(OPENS, 1); /* it is read although all others wait for it */
		}
		assert_true(await(&done, want + opens));
	}
	loop_stop(l);
	pthread_join(t, NULL);
	loop_free(l);
}

static void nothing(int sig)
{
	(void)sig;
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(threads_that_end_leave_a_reader_behind)};
	struct sigaction sa = {.sa_handler = nothing};

	sigaction(SIGUSR1, &sa, NULL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
