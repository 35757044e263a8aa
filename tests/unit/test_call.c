/* links: sandboxfs/call.c sandboxfs/log.c contrib/common/buf.c */
/* Calls: waiting, waking, cancelling, deadlines, faults; and the log's ring. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "call.h"
#include "log.h"

struct waiter {
	struct call call;
	bool done; /* under call.lock */
	int64_t deadline;
	int result;
};

static bool is_done(void *arg)
{
	return ((struct waiter *)arg)->done;
}

static void *wait_for_it(void *arg)
{
	struct waiter *w = arg;
	w->result = call_wait(&w->call, is_done, w, w->deadline);
	return NULL;
}

static void waiter_init(struct waiter *w)
{
	memset(w, 0, sizeof(*w));
	w->deadline = -1;
	call_init(&w->call, 42);
}

static void waiter_end(struct waiter *w)
{
	call_destroy(&w->call);
}

static void test_a_wait_ends_when_it_is_done(void **state)
{
	(void)state;
	for (int round = 0; round < 200; round++) {
		struct waiter w;
		pthread_t t;
		waiter_init(&w);
		assert_int_equal(pthread_create(&t, NULL, wait_for_it, &w), 0);
		pthread_mutex_lock(&w.call.lock);
		w.done = true;
		pthread_mutex_unlock(&w.call.lock);
		call_wake(&w.call);
		pthread_join(t, NULL);
		assert_int_equal(w.result, 0);
		waiter_end(&w);
	}
}

static void test_a_cancel_ends_a_wait(void **state)
{
	(void)state;
	for (int round = 0; round < 200; round++) {
		struct waiter w;
		pthread_t t;
		waiter_init(&w);
		assert_int_equal(pthread_create(&t, NULL, wait_for_it, &w), 0);
		assert_false(call_cancelled(&w.call));
		call_cancel(&w.call);
		call_cancel(&w.call);
		assert_true(call_cancelled(&w.call));
		pthread_join(t, NULL);
		assert_int_equal(w.result, -EINTR);
		waiter_end(&w);
	}
}

static void test_a_deadline_ends_a_wait(void **state)
{
	(void)state;
	struct waiter w;
	waiter_init(&w);
	int64_t begin = call_now_ms();
	w.deadline = begin + 30;
	wait_for_it(&w);
	assert_int_equal(w.result, -ETIMEDOUT);
	assert_true(call_now_ms() >= begin + 30);
	w.deadline = 0; /* long past */
	wait_for_it(&w);
	assert_int_equal(w.result, -ETIMEDOUT);
	w.done = true;
	wait_for_it(&w);
	assert_int_equal(w.result, 0);
	call_cancel(&w.call); /* what is done is done */
	wait_for_it(&w);
	assert_int_equal(w.result, 0);
	w.done = false;
	wait_for_it(&w);
	assert_int_equal(w.result, -EINTR);
	waiter_end(&w);
}

static void test_a_limit_cancels_whatever_it_waits_for(void **state)
{
	(void)state;
	struct waiter w;
	pthread_t t;
	waiter_init(&w);
	call_end_by(&w.call, call_now_ms() + 60000);
	assert_false(call_cancelled(&w.call));
	int64_t begin = call_now_ms();
	call_end_by(&w.call, begin + 30); /* the earliest counts */
	call_end_by(&w.call, begin + 60000);
	wait_for_it(&w);
	assert_int_equal(w.result, -EINTR);
	assert_true(call_now_ms() >= begin + 30);
	assert_true(call_cancelled(&w.call));
	waiter_end(&w);

	/* a deadline of the wait's own goes first */
	waiter_init(&w);
	call_end_by(&w.call, call_now_ms() + 60000);
	w.deadline = call_now_ms() + 10;
	wait_for_it(&w);
	assert_int_equal(w.result, -ETIMEDOUT);
	waiter_end(&w);

	/* while it waits */
	waiter_init(&w);
	assert_int_equal(pthread_create(&t, NULL, wait_for_it, &w), 0);
	call_end_by(&w.call, call_now_ms() + 20);
	pthread_join(t, NULL);
	assert_int_equal(w.result, -EINTR);
	w.done = true;
	wait_for_it(&w);
	assert_int_equal(w.result, 0);
	waiter_end(&w);
}

static void test_the_first_fault_stays(void **state)
{
	(void)state;
	struct call c;
	struct fault copy = {0};
	call_init(&c, 7);
	call_fault_prefix(&c, "nothing: ");
	assert_int_equal(c.fault.err, 0);
	assert_int_equal(call_fault(&c, ENOENT, "FILE_NOT_FOUND", "no %s", "file"), -ENOENT);
	assert_int_equal(call_fault(&c, EIO, NULL, "later"), -EIO);
	call_fault_prefix(&c, "exec: ");
	assert_int_equal(c.fault.err, ENOENT);
	assert_string_equal(c.fault.message, "exec: no file");
	assert_string_equal(c.fault.code, "FILE_NOT_FOUND");
	assert_int_equal(c.fault.pid, 7);
	assert_true(c.fault.when.tv_sec > 0);
	c.fault.suggestion = strdup("look elsewhere");
	c.fault.retry = true;
	fault_copy(&copy, &c.fault);
	call_destroy(&c);
	assert_string_equal(copy.message, "exec: no file");
	assert_string_equal(copy.suggestion, "look elsewhere");
	assert_null(copy.path);
	assert_true(copy.retry);
	fault_copy(&copy, &copy);
	assert_string_equal(copy.message, "exec: no file");
	fault_clear(&copy);
	assert_int_equal(copy.err, 0);
	assert_null(copy.message);
	assert_int_equal(call_fault(NULL, EPERM, NULL, "to nobody"), -EPERM);
	call_fault_prefix(NULL, "x");
}

static size_t count_lines(const char *s)
{
	size_t n = 0;
	for (; *s; s++)
		n += *s == '\n';
	return n;
}

static void test_the_log_keeps_the_newest_thousand_lines(void **state)
{
	(void)state;
	struct buf b = BUF_INIT;
	log_set_to(LOG_TO_SYSLOG);
	for (int i = 0; i < 1200; i++)
		log_info("line %d", i);
	log_debug("not at this level");
	log_describe(&b);
	assert_int_equal(count_lines(b.data), 1000);
	assert_null(strstr(b.data, "line 199\n"));
	assert_non_null(strstr(b.data, " info line 200\n"));
	assert_non_null(strstr(b.data, " info line 1199\n"));
	assert_null(strstr(b.data, "not at this level"));
	log_set_level(LOG_LEVEL_DEBUG);
	assert_int_equal(log_get_level(), LOG_LEVEL_DEBUG);
	log_debug("now it is");
	buf_clear(&b);
	log_describe(&b);
	assert_non_null(strstr(b.data, " debug now it is\n"));
	buf_release(&b);
}

static void test_a_line_stays_one_harmless_bounded_line(void **state)
{
	(void)state;
	struct buf b = BUF_INIT;
	char *longer = malloc(100001);
	memset(longer, 'x', 100000);
	longer[100000] = 0;
	errno = EXDEV;
	log_error("a\nb\033[31m\x7f %s\n", "caf\xc3\xa9 \xc2\x9b"
									   "2J\xc2\xa0\xc2");
	assert_int_equal(errno, EXDEV);
	log_error("%s", longer);
	log_describe(&b);
	assert_int_equal(count_lines(b.data), 1000);
	assert_non_null(strstr(b.data, " error a b [31m  caf\xc3\xa9   2J\xc2\xa0\xc2\n"));
	assert_true(b.size < 1000 * 200);
	free(longer);
	buf_release(&b);
}

static void *log_much(void *arg)
{
	struct buf b = BUF_INIT;
	for (int i = 0; i < 500; i++)
		log_info("%s %d", (const char *)arg, i);
	log_describe(&b);
	buf_release(&b);
	return NULL;
}

static void test_threads_log_at_once(void **state)
{
	(void)state;
	pthread_t t[2];
	assert_int_equal(pthread_create(&t[0], NULL, log_much, "one"), 0);
	assert_int_equal(pthread_create(&t[1], NULL, log_much, "two"), 0);
	pthread_join(t[0], NULL);
	pthread_join(t[1], NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_a_wait_ends_when_it_is_done),
		cmocka_unit_test(test_a_cancel_ends_a_wait),
		cmocka_unit_test(test_a_deadline_ends_a_wait),
		cmocka_unit_test(test_a_limit_cancels_whatever_it_waits_for),
		cmocka_unit_test(test_the_first_fault_stays),
		cmocka_unit_test(test_the_log_keeps_the_newest_thousand_lines),
		cmocka_unit_test(test_a_line_stays_one_harmless_bounded_line),
		cmocka_unit_test(test_threads_log_at_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
