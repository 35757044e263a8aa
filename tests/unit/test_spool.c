/* links: contrib/common/buf.c contrib/common/spool.c */
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include <cmocka.h>

#include "buf.h"
#include "spool.h"

static struct spool *make(uint64_t limit)
{
	struct spool *s;
	assert_int_equal(spool_new("/tmp", limit, &s), 0);
	return s;
}

static void put(struct spool *s, enum spool_view stream, const char *text)
{
	assert_int_equal(spool_append(s, stream, text, strlen(text)), 0);
}

static void assert_view(struct spool *s, enum spool_view view, uint64_t off, const char *text)
{
	char got[256];
	ssize_t n = spool_pread(s, view, got, sizeof got - 1, off, NULL, NULL);
	assert_int_equal(n, strlen(text));
	got[n] = '\0';
	assert_string_equal(got, text);
}

static void three_views_of_two_streams(void **state)
{
	(void)state;
	struct spool *s = make(1000);
	put(s, SPOOL_STDOUT, "one ");
	put(s, SPOOL_STDERR, "ERR ");
	put(s, SPOOL_STDERR, "MORE ");
	put(s, SPOOL_STDOUT, "two");
	assert_view(s, SPOOL_BOTH, 0, "one ERR MORE two");
	assert_view(s, SPOOL_BOTH, 6, "R MORE two");
	assert_view(s, SPOOL_STDOUT, 0, "one two");
	assert_view(s, SPOOL_STDOUT, 4, "two");
	assert_view(s, SPOOL_STDERR, 0, "ERR MORE ");
	assert_view(s, SPOOL_STDERR, 8, " ");
	assert_int_equal(spool_size(s, SPOOL_BOTH), 16);
	assert_int_equal(spool_size(s, SPOOL_STDOUT), 7);
	assert_int_equal(spool_size(s, SPOOL_STDERR), 9);
	assert_int_equal(spool_first(s, SPOOL_BOTH), 0);
	char c;
	assert_int_equal(spool_pread(s, SPOOL_BOTH, &c, 1, 16, NULL, NULL), 0);
	assert_int_equal(spool_pread(s, SPOOL_STDERR, &c, 1, 100, NULL, NULL), 0);
	spool_put(s);
}

static void a_read_that_asks_for_the_stream_stays_in_one(void **state)
{
	(void)state;
	struct spool *s = make(1000);
	put(s, SPOOL_STDOUT, "aaa");
	put(s, SPOOL_STDERR, "bb");
	char got[16];
	enum spool_view stream = SPOOL_BOTH;
	assert_int_equal(spool_pread(s, SPOOL_BOTH, got, sizeof got, 0, &stream, NULL), 3);
	assert_int_equal(stream, SPOOL_STDOUT);
	assert_int_equal(spool_pread(s, SPOOL_BOTH, got, sizeof got, 3, &stream, NULL), 2);
	assert_int_equal(stream, SPOOL_STDERR);
	spool_put(s);
}

static void beyond_the_limit_the_oldest_goes(void **state)
{
	(void)state;
	struct spool *s = make(10);
	put(s, SPOOL_STDOUT, "01234567");
	put(s, SPOOL_STDERR, "abcdef");
	assert_int_equal(spool_first(s, SPOOL_BOTH), 4);
	assert_int_equal(spool_first(s, SPOOL_STDOUT), 4);
	assert_int_equal(spool_first(s, SPOOL_STDERR), 0);
	assert_view(s, SPOOL_BOTH, 4, "4567abcdef");
	assert_view(s, SPOOL_STDOUT, 4, "4567");
	char c;
	uint64_t next = 0;
	assert_int_equal(spool_pread(s, SPOOL_BOTH, &c, 1, 0, NULL, &next), -ESPIPE);
	assert_int_equal(next, 4);
	put(s, SPOOL_STDOUT, "a text of more than ten bytes");
	assert_int_equal(spool_size(s, SPOOL_BOTH), 43);
	assert_int_equal(spool_first(s, SPOOL_BOTH), 33);
	assert_int_equal(spool_first(s, SPOOL_STDERR), 6);
	assert_view(s, SPOOL_BOTH, 33, " ten bytes");
	assert_view(s, SPOOL_STDOUT, 27, " ten bytes");
	spool_put(s);
}

static void a_gap_counts_and_cannot_be_read(void **state)
{
	(void)state;
	struct spool *s = make(100);
	put(s, SPOOL_STDOUT, "ab");
	assert_int_equal(spool_append_gap(s, SPOOL_STDOUT, 5), 0);
	put(s, SPOOL_STDOUT, "cd");
	assert_int_equal(spool_size(s, SPOOL_STDOUT), 9);
	assert_view(s, SPOOL_STDOUT, 0, "ab");
	char c;
	uint64_t next = 0;
	assert_int_equal(spool_pread(s, SPOOL_STDOUT, &c, 1, 2, NULL, &next), -ESPIPE);
	assert_int_equal(next, 7);
	assert_int_equal(spool_pread(s, SPOOL_BOTH, &c, 1, 6, NULL, &next), -ESPIPE);
	assert_int_equal(next, 7);
	assert_view(s, SPOOL_BOTH, 7, "cd");
	spool_put(s);
	s = make(100);
	assert_int_equal(spool_append_gap(s, SPOOL_STDERR, 3), 0);
	assert_int_equal(spool_first(s, SPOOL_BOTH), 3);
	put(s, SPOOL_STDOUT, "x");
	assert_view(s, SPOOL_BOTH, 3, "x");
	assert_view(s, SPOOL_STDOUT, 0, "x");
	spool_put(s);
}

static void a_reader_that_goes_on_is_told_what_it_lost(void **state)
{
	struct spool *s = NULL;
	enum spool_view stream;
	uint64_t off = 0, lost;
	char got[8];

	(void)state;
	assert_int_equal(spool_new("/tmp", 10, &s), 0);
	assert_int_equal(spool_read_on(s, SPOOL_BOTH, got, 8, &off, NULL, &lost), 0);
	assert_int_equal(spool_append(s, SPOOL_STDOUT, "0123456789", 10), 0);
	assert_int_equal(spool_read_on(s, SPOOL_BOTH, got, 4, &off, NULL, &lost), 4);
	assert_int_equal(lost, 0);
	assert_int_equal(off, 4);
	assert_int_equal(spool_append(s, SPOOL_STDERR, "abcdefg", 7), 0);
	assert_int_equal(spool_read_on(s, SPOOL_BOTH, got, 8, &off, &stream, &lost), 3);
	assert_memory_equal(got, "789", 3);
	assert_int_equal(stream, SPOOL_STDOUT);
	assert_int_equal(lost, 3);
	assert_int_equal(off, 10);
	/* what is left is a gap: nothing is read, but not silently */
	assert_int_equal(spool_read_on(s, SPOOL_BOTH, got, 7, &off, NULL, &lost), 7);
	assert_int_equal(spool_append_gap(s, SPOOL_STDOUT, 5), 0);
	assert_int_equal(spool_read_on(s, SPOOL_BOTH, got, 8, &off, NULL, &lost), 0);
	assert_int_equal(lost, 5);
	assert_int_equal(off, 22);
	off = 10;
	assert_int_equal(spool_read_on(s, SPOOL_STDOUT, got, 8, &off, NULL, &lost), 0);
	assert_int_equal(lost, 5);
	assert_int_equal(spool_append_gap(s, SPOOL_STDOUT, INT64_MAX), -EOVERFLOW);
	spool_put(s);
}

static void after_the_end_nothing_is_taken(void **state)
{
	(void)state;
	struct spool *s = make(100);
	put(s, SPOOL_STDOUT, "x");
	spool_end(s);
	spool_end(s);
	assert_true(spool_ended(s));
	assert_int_equal(spool_append(s, SPOOL_STDOUT, "y", 1), -EPIPE);
	assert_int_equal(spool_append_gap(s, SPOOL_STDOUT, 1), -EPIPE);
	spool_put(s);
}

/* Every append of a random mixture is compared with plain copies of both streams. */
static void a_random_mixture_equals_its_model(void **state)
{
	(void)state;
	enum { LIMIT = 777 };
	struct spool *s = make(LIMIT);
	struct buf model[3] = {BUF_INIT, BUF_INIT, BUF_INIT};
	unsigned seed = 7;
	for (int round = 0; round < 3000; round++) {
		char bytes[1000];
		size_t n = (size_t)rand_r(&seed) % (round % 50 == 0 ? sizeof bytes : 40) + 1;
		enum spool_view stream = rand_r(&seed) % 2 ? SPOOL_STDOUT : SPOOL_STDERR;
		for (size_t i = 0; i < n; i++)
			bytes[i] = (char)rand_r(&seed);
		assert_int_equal(spool_append(s, stream, bytes, n), 0);
		buf_add(&model[SPOOL_BOTH], bytes, n);
		buf_add(&model[stream], bytes, n);
		uint64_t total = model[SPOOL_BOTH].size;
		assert_int_equal(spool_first(s, SPOOL_BOTH), total > LIMIT ? total - LIMIT : 0);
		for (int view = 0; view < 3; view++) {
			char got[LIMIT + 1];
			uint64_t first = spool_first(s, (enum spool_view)view);
			assert_int_equal(spool_size(s, (enum spool_view)view), model[view].size);
			ssize_t have =
				spool_pread(s, (enum spool_view)view, got, sizeof got, first, NULL, NULL);
			assert_int_equal(have, model[view].size - first);
			if (have)
				assert_memory_equal(got, model[view].data + first, (size_t)have);
		}
	}
	for (int view = 0; view < 3; view++)
		buf_release(&model[view]);
	spool_put(s);
}

static void count_call(void *arg)
{
	atomic_fetch_add((atomic_int *)arg, 1);
}

static void watchers_are_told_until_they_leave(void **state)
{
	(void)state;
	struct spool *s = make(100);
	atomic_int calls = 0;
	struct spool_watch *w = spool_watch(s, count_call, &calls);
	assert_non_null(w);
	put(s, SPOOL_STDOUT, "x");
	put(s, SPOOL_STDERR, "y");
	assert_int_equal(calls, 2);
	spool_unwatch(s, w);
	put(s, SPOOL_STDERR, "z");
	spool_end(s);
	assert_int_equal(calls, 2);
	spool_put(s);
}

enum { FOLLOWED = 200000 };

static void post(void *arg)
{
	sem_post(arg);
}

static void *follow(void *arg)
{
	struct spool *s = arg;
	uint64_t off = 0;
	char got[4096];
	sem_t told;
	assert_int_equal(sem_init(&told, 0, 0), 0);
	struct spool_watch *w = spool_watch(s, post, &told);
	assert_non_null(w);
	for (;;) {
		bool last = spool_ended(s); /* asked first: what there is then is all */
		ssize_t n = spool_pread(s, SPOOL_STDOUT, got, sizeof got, off, NULL, NULL);
		assert_true(n >= 0);
		if (!n && last)
			break;
		if (!n)
			assert_int_equal(sem_wait(&told), 0);
		for (ssize_t i = 0; i < n; i++)
			assert_int_equal((unsigned char)got[i], (off + (uint64_t)i) % 251);
		off += (uint64_t)n;
	}
	assert_int_equal(off, FOLLOWED);
	spool_unwatch(s, w);
	sem_destroy(&told);
	return NULL;
}

static void readers_follow_a_writer(void **state)
{
	(void)state;
	struct spool *s = make(2 * FOLLOWED);
	pthread_t readers[4];
	for (size_t i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&readers[i], NULL, follow, s), 0);
	for (unsigned i = 0; i < FOLLOWED;) {
		unsigned char bytes[100];
		unsigned n = 0;
		for (; n < sizeof bytes && i < FOLLOWED; n++, i++)
			bytes[n] = (unsigned char)(i % 251);
		assert_int_equal(spool_append(s, SPOOL_STDOUT, bytes, n), 0);
		assert_int_equal(spool_append(s, SPOOL_STDERR, "e", 1), 0);
	}
	spool_end(s);
	for (size_t i = 0; i < 4; i++)
		pthread_join(readers[i], NULL);
	spool_put(s);
}

static void the_index_is_bounded_too(void **state)
{
	(void)state;
	struct spool *s = make(1 << 24);
	for (int i = 0; i < 700000; i++)
		assert_int_equal(spool_append(s, i % 2 ? SPOOL_STDOUT : SPOOL_STDERR, "x", 1), 0);
	assert_int_equal(spool_size(s, SPOOL_BOTH), 700000);
	uint64_t first = spool_first(s, SPOOL_BOTH);
	assert_true(first > 100000 && first < 300000);
	char c;
	assert_int_equal(spool_pread(s, SPOOL_BOTH, &c, 1, first, NULL, NULL), 1);
	spool_put(s);
}

/* What the disk does not take is kept in memory, up to 64 KiB, in its order among what the disk took. */
static void a_full_disk_loses_no_first_words(void **state)
{
	(void)state;
	struct rlimit old, small;
	static char big[60000], got[sizeof big + 20];
	struct spool *s = make(1 << 20);
	memset(big, 'b', sizeof big);
	put(s, SPOOL_STDOUT, "before ");
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	small = old;
	small.rlim_cur = 7;
	void (*handler)(int) = signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	int full = spool_append(s, SPOOL_STDERR, "full ", 5);
	int much = spool_append(s, SPOOL_STDOUT, big, sizeof big);
	int more = spool_append(s, SPOOL_STDOUT, big, sizeof big);
	int gap = spool_append_gap(s, SPOOL_STDOUT, sizeof big);
	int last = spool_append(s, SPOOL_STDOUT, "last ", 5);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
	signal(SIGXFSZ, handler);
	assert_int_equal(full, 0);
	assert_int_equal(much, 0);
	assert_int_equal(more, -EFBIG);
	assert_int_equal(spool_refused(s), EFBIG);
	assert_int_equal(gap, 0);
	assert_int_equal(last, 0);
	assert_int_equal(
		spool_append(s, SPOOL_STDOUT, big, sizeof big), 0); /* the disk has room again */
	put(s, SPOOL_STDERR, "after");
	assert_view(s, SPOOL_STDERR, 0, "full after");
	assert_int_equal(spool_pread(s, SPOOL_BOTH, got, sizeof got, 0, NULL, NULL), 12 + sizeof big);
	assert_memory_equal(got, "before full bbb", 15);
	assert_memory_equal(got + sizeof big, "bbbbbbbbbbbb", 12);
	uint64_t at = 12 + 2 * sizeof big; /* behind the gap */
	assert_int_equal(spool_pread(s, SPOOL_BOTH, got, 8, at, NULL, NULL), 8);
	assert_memory_equal(got, "last bbb", 8);
	assert_int_equal(spool_pread(s, SPOOL_BOTH, got, 20, at + 5 + sizeof big - 3, NULL, NULL), 8);
	assert_memory_equal(got, "bbbafter", 8);
	spool_put(s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(three_views_of_two_streams),
		cmocka_unit_test(a_read_that_asks_for_the_stream_stays_in_one),
		cmocka_unit_test(beyond_the_limit_the_oldest_goes),
		cmocka_unit_test(a_gap_counts_and_cannot_be_read),
		cmocka_unit_test(a_reader_that_goes_on_is_told_what_it_lost),
		cmocka_unit_test(after_the_end_nothing_is_taken),
		cmocka_unit_test(a_random_mixture_equals_its_model),
		cmocka_unit_test(watchers_are_told_until_they_leave),
		cmocka_unit_test(readers_follow_a_writer),
		cmocka_unit_test(the_index_is_bounded_too),
		cmocka_unit_test(a_full_disk_loses_no_first_words),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
