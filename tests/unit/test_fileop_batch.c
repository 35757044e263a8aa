/* links: contrib/common/buf.c contrib/common/fileop.c contrib/common/fileop_calls.c contrib/common/fileop_dir.c contrib/common/fileop_handles.c contrib/common/fileop_io.c contrib/common/fileop_open.c contrib/common/fileop_path.c contrib/common/fileop_replay.c contrib/common/fileop_server.c contrib/common/fileop_stage.c contrib/common/fileop_xattr.c */
/* Batches as wholes: heads, order, repetition, leases, garbage, many threads. */
#include "fileop_rig.h"

#include <pthread.h>

static void test_ping_and_the_head_of_a_reply(void **state)
{
	struct rig *r = *state;
	rig_begin(r);
	assert_int_equal(rig_one(r, rig_call(r, FILEOP_PING)), 0);
	assert_int_equal(r->body.left, 0);
	assert_int_equal(r->head.workspace_ino, stat_of(r, "").st_ino);
	assert_true(r->head.avail > 0);
	uint8_t boot[FILEOP_ID_SIZE];
	memcpy(boot, r->head.boot, sizeof(boot));
	rig_begin(r);
	assert_int_equal(rig_one(r, rig_call(r, FILEOP_PING)), 0);
	assert_memory_equal(r->head.boot, boot, sizeof(boot));
}

static void test_unknown_calls_and_trailing_bytes_are_refused(void **state)
{
	struct rig *r = *state;
	rig_begin(r);
	assert_int_equal(rig_one(r, rig_call(r, FILEOP_CODE_COUNT)), -ENOSYS);
	rig_begin(r);
	assert_int_equal(rig_one(r, rig_call(r, 0)), -ENOSYS);
	rig_begin(r);
	size_t at = rig_call(r, FILEOP_MKDIR);
	rig_str(r, rig_path(r, "d"));
	buf_u32(&r->request, 0755);
	buf_u8(&r->request, 1);
	assert_int_equal(rig_one(r, at), -EBADMSG);
	assert_false(is_there(r, "d"));
}

static void begin_mkdir(struct rig *r, const char *name, unsigned opflags)
{
	size_t at = fileop_begin_call(&r->request, FILEOP_MKDIR, opflags);
	rig_str(r, rig_path(r, name));
	buf_u32(&r->request, 0755);
	fileop_end_call(&r->request, at);
}

static void test_calls_are_done_in_order_and_each_has_its_errno(void **state)
{
	struct rig *r = *state;
	struct reader body;
	rig_begin(r);
	begin_mkdir(r, "a", 0);
	begin_mkdir(r, "a", 0);
	begin_mkdir(r, "a/b", 0);
	struct reader in = rig_send(r, 3);
	assert_int_equal(fileop_get_result(&in, &body), 0);
	assert_int_equal(fileop_get_result(&in, &body), -EEXIST);
	assert_int_equal(fileop_get_result(&in, &body), 0);
	assert_true(is_there(r, "a/b"));
}

static void test_the_rest_of_a_batch_depends_on_a_call_that_must(void **state)
{
	struct rig *r = *state;
	struct reader body;
	rig_begin(r);
	begin_mkdir(r, "a", FILEOP_MUST);
	begin_mkdir(r, "a", FILEOP_MUST);
	begin_mkdir(r, "b", FILEOP_MUST);
	begin_mkdir(r, "c", 0);
	struct reader in = rig_send(r, 4);
	assert_int_equal(fileop_get_result(&in, &body), 0);
	assert_int_equal(fileop_get_result(&in, &body), -EEXIST);
	assert_int_equal(fileop_get_result(&in, &body), -ECANCELED);
	assert_int_equal(fileop_get_result(&in, &body), -ECANCELED);
	assert_int_equal(count_names(r), 1);
}

/* Sends the request of r once more as it is. */
static int run_again(struct rig *r, struct buf *reply)
{
	buf_clear(reply);
	return fileop_server_run(r->s, r->request.data, r->request.size, reply);
}

static int first_error(const struct buf *reply)
{
	struct reader in, body;
	struct fileop_reply head;
	reader_init(&in, reply->data, reply->size);
	assert_int_equal(fileop_get_reply(&in, 1, &head), 0);
	return fileop_get_result(&in, &body);
}

static void test_a_repeated_batch_gets_the_same_reply_and_is_done_once(void **state)
{
	struct rig *r = *state;
	AUTO_BUF again = BUF_INIT;
	r->seq = 1;
	assert_int_equal(op_make(r, FILEOP_MKDIR, "d", 0755), 0);
	assert_int_equal(rmdir(rig_path(r, "d")), 0);
	assert_int_equal(run_again(r, &again), 0);
	assert_int_equal(again.size, r->reply.size);
	assert_memory_equal(again.data, r->reply.data, again.size);
	assert_false(is_there(r, "d"));
	/* Another client's numbers are its own. */
	r->client[0]++;
	r->seq = 1;
	assert_int_equal(op_make(r, FILEOP_MKDIR, "d", 0755), 0);
	assert_true(is_there(r, "d"));
	/* A number of another batch gets neither its reply nor anything done. */
	rig_begin(r);
	r->request.data[24] = 1; /* seq: behind magic, version, 0, client */
	begin_mkdir(r, "x", 0);
	begin_mkdir(r, "y", 0);
	r->seq = 0;
	struct reader body, in = rig_send(r, 2);
	assert_int_equal(fileop_get_result(&in, &body), -ESTALE);
	assert_int_equal(fileop_get_result(&in, &body), -ESTALE);
	assert_false(is_there(r, "x"));
	/* What is not numbered is not remembered. */
	r->seq = 0;
	assert_int_equal(op_make(r, FILEOP_MKDIR, "e", 0755), 0);
	assert_int_equal(run_again(r, &again), 0);
	assert_int_equal(first_error(&again), -EEXIST);
}

static int abandon(struct rig *r, uint64_t seq)
{
	r->seq = 0;
	rig_begin(r);
	size_t at = rig_call(r, FILEOP_ABANDON);
	buf_u64(&r->request, seq);
	return rig_one(r, at);
}

static void test_an_abandoned_batch_that_comes_late_is_refused(void **state)
{
	struct rig *r = *state;
	AUTO_BUF late = BUF_INIT;
	AUTO_BUF reply = BUF_INIT;
	put_file(r, "f", "old");
	/* It is on the way, when its sender gives it up, and the name goes to another file. */
	r->seq = 7;
	rig_begin(r);
	size_t at = rig_call(r, FILEOP_UNLINK);
	rig_str(r, rig_path(r, "f"));
	fileop_end_call(&r->request, at);
	fileop_end_request(&r->request, 1);
	buf_add(&late, r->request.data, r->request.size);
	assert_int_equal(abandon(r, 7), 0);
	assert_int_equal(abandon(r, 7), 0);
	assert_int_equal(fileop_server_run(r->s, late.data, late.size, &reply), 0);
	assert_int_equal(first_error(&reply), -ESTALE);
	assert_true(is_there(r, "f"));
	/* One that had come before has its answer still. */
	r->seq = 8;
	assert_int_equal(op_make(r, FILEOP_MKDIR, "d", 0755), 0);
	buf_clear(&late);
	buf_add(&late, r->request.data, r->request.size);
	assert_int_equal(abandon(r, 8), 0);
	buf_clear(&reply);
	assert_int_equal(fileop_server_run(r->s, late.data, late.size, &reply), 0);
	assert_int_equal(first_error(&reply), 0);
}

static void test_a_repeated_open_has_its_handle(void **state)
{
	struct rig *r = *state;
	AUTO_BUF again = BUF_INIT;
	r->seq = 1;
	assert_int_equal(op_open(r, 5, "f", STAGE_NEW, 0644, NULL), 3);
	assert_int_equal(run_again(r, &again), 0);
	assert_int_equal(first_error(&again), 0);
	assert_int_equal(op_write(r, 5, 0, "x", 1), 0);
	assert_int_equal(op_close(r, 5), 0);
	assert_int_equal(run_again(r, &again), 0);
	assert_int_equal(first_error(&again), 0);
}

static void test_acknowledged_replies_are_dropped_beyond_256(void **state)
{
	struct rig *r = *state;
	AUTO_BUF first = BUF_INIT;
	AUTO_BUF again = BUF_INIT;
	r->seq = 1;
	assert_int_equal(op_make(r, FILEOP_MKDIR, "first", 0755), 0);
	buf_add(&first, r->request.data, r->request.size);
	for (int i = 0; i < 300; i++)
		op_make(r, FILEOP_MKDIR, "d", 0755);
	/* Not acknowledged: still known. */
	assert_int_equal(fileop_server_run(r->s, first.data, first.size, &again), 0);
	assert_int_equal(first_error(&again), 0);
	r->acked = r->seq - 1;
	op_make(r, FILEOP_MKDIR, "d", 0755);
	assert_true(r->s->clients->remembered <= FILEOP_REMEMBERED_MIN + 1);
	/* Gone: refused, and not done again. */
	assert_int_equal(rmdir(rig_path(r, "first")), 0);
	buf_clear(&again);
	assert_int_equal(fileop_server_run(r->s, first.data, first.size, &again), 0);
	assert_int_equal(first_error(&again), -ESTALE);
	assert_false(is_there(r, "first"));
	/* The newest 256 are there although acknowledged. */
	op_make(r, FILEOP_MKDIR, "d", 0755);
	assert_int_equal(run_again(r, &again), 0);
	assert_int_equal(first_error(&again), -EEXIST);
}

static void test_what_is_remembered_is_bounded(void **state)
{
	struct rig *r = *state;
	AUTO_BUF again = BUF_INIT;
	r->seq = 1;
	for (int i = 0; i < FILEOP_REMEMBERED_MAX + 100; i++)
		assert_int_equal(op_getattr(r, 0, "", NULL), 0);
	assert_true(r->s->clients->remembered <= FILEOP_REMEMBERED_MAX + 1);
	/* A large reply is not kept; its repetition is refused. */
	int fd = open(rig_path(r, "f"), O_RDWR | O_CREAT, 0644);
	assert_int_equal(ftruncate(fd, 8 << 20), 0);
	close(fd);
	assert_int_equal(op_read(r, 0, "f", 0, 2 << 20, NULL), 2 << 20);
	assert_int_equal(run_again(r, &again), 0);
	assert_int_equal(first_error(&again), -ESTALE);
	/* Many just below that: the oldest go. */
	for (int i = 0; i < 40; i++)
		assert_int_equal(op_read(r, 0, "f", 0, 1000000, NULL), 1000000);
	assert_true(r->s->clients->remembered_bytes <= FILEOP_REMEMBERED_BYTES + (1 << 20));
	assert_int_equal(run_again(r, &again), 0);
	assert_int_equal(first_error(&again), 0);
}

static void test_clients_are_bounded(void **state)
{
	struct rig *r = *state;
	put_file(r, "f", "x");
	for (int i = 0; i < 200; i++) {
		r->client[1] = (uint8_t)i;
		assert_int_equal(op_open(r, 1, "f", RW, 0, NULL), 0);
	}
	assert_int_equal(r->s->client_count, FILEOP_CLIENTS);
	assert_int_equal(op_close(r, 1), 0);
	r->client[1] = 0;
	assert_int_equal(op_close(r, 1), -EBADF);
}

static size_t count_descriptors(void)
{
	size_t n = 0;
	for (int fd = 0; fd < 256; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void test_handles_end_with_the_lease(void **state)
{
	struct rig *r = *state;
	AUTO_BUF again = BUF_INIT;
	put_file(r, "f", "x");
	size_t before = count_descriptors();
	int64_t now = fileop_now_ms(); /* it is heard of from then on */
	assert_int_equal(op_open(r, 1, "f", RW, 0, NULL), 0);
	assert_int_equal(op_open(r, 2, "g", STAGE_NEW, 0644, NULL), 3);
	r->seq = 1;
	assert_int_equal(op_make(r, FILEOP_MKDIR, "d", 0755), 0);
	fileop_expire(r->s, now + (FILEOP_LEASE_SECONDS - 5) * 1000);
	assert_int_equal(r->s->clients->handle_count, 2);
	fileop_expire(r->s, now + (FILEOP_LEASE_SECONDS + 5) * 1000); /* looked at once a minute */
	assert_int_equal(r->s->clients->handle_count, 2);
	fileop_expire(r->s, now + (FILEOP_LEASE_SECONDS + 60) * 1000);
	assert_int_equal(r->s->clients->handle_count, 0);
	assert_int_equal(count_descriptors(), before);
	/* What was done stays known. */
	assert_int_equal(run_again(r, &again), 0);
	assert_int_equal(first_error(&again), 0);
	r->seq = 0;
	assert_int_equal(op_write(r, 1, 0, "x", 1), -EBADF);
}

static void test_what_is_no_batch_does_nothing(void **state)
{
	struct rig *r = *state;
	AUTO_BUF reply = BUF_INIT;
	rig_begin(r);
	begin_mkdir(r, "a", 0);
	begin_mkdir(r, "b", 0);
	fileop_end_request(&r->request, 2);
	for (size_t n = 0; n < r->request.size; n++) {
		/* In memory of its own, so that a read past the end is seen by the sanitizer. */
		AUTO_FREE char *cut = malloc(n ? n : 1);
		memcpy(cut, r->request.data, n);
		assert_int_equal(fileop_server_run(r->s, cut, n, &reply), -EBADMSG);
	}
	static const size_t head[] = {0, 4, 6};
	for (size_t i = 0; i < 3; i++) {
		r->request.data[head[i]]++;
		assert_int_equal(
			fileop_server_run(r->s, r->request.data, r->request.size, &reply), -EBADMSG);
		r->request.data[head[i]]--;
	}
	fileop_end_request(&r->request, 1);
	assert_int_equal(fileop_server_run(r->s, r->request.data, r->request.size, &reply), -EBADMSG);
	fileop_end_request(&r->request, FILEOP_MAX_COUNT + 1);
	assert_int_equal(fileop_server_run(r->s, r->request.data, r->request.size, &reply), -EBADMSG);
	assert_int_equal(reply.size, 0);
	assert_int_equal(count_names(r), 0);
}

static uint64_t next_random(uint64_t *x)
{
	*x ^= *x << 13;
	*x ^= *x >> 7;
	*x ^= *x << 17;
	return *x;
}

/* Well framed calls with bodies of chance, and bodies of true calls with bytes changed. Paths lead nowhere else. */
static void test_garbage_gets_errors(void **state)
{
	struct rig *r = *state;
	uint64_t x = 88172645463325252u;
	put_file(r, "f", "x");
	for (int round = 0; round < 20000; round++) {
		rig_begin(r);
		unsigned code = (unsigned)(next_random(&x) % (FILEOP_CODE_COUNT + 2));
		size_t at = fileop_begin_call(&r->request, code, next_random(&x) & 3);
		if (next_random(&x) & 1) {
			rig_target(r, next_random(&x) % 5, "f");
			buf_u32(&r->request, (uint32_t)next_random(&x));
			buf_u64(&r->request, next_random(&x) % 100);
		}
		for (size_t n = next_random(&x) % 80; n; n--)
			buf_u8(&r->request, (uint8_t)(next_random(&x) % 3 ? 0 : next_random(&x)));
		for (size_t n = next_random(&x) % 3; n; n--)
			r->request.data[at + 8 + next_random(&x) % (r->request.size - at)] ^=
				(char)(1 << (next_random(&x) & 7));
		rig_one(r, at);
	}
}

static void test_a_client_does_not_believe_a_reply(void **state)
{
	(void)state;
	AUTO_BUF b = BUF_INIT;
	struct reader r, body;
	struct fileop_reply head;
	struct fileop_attr a;
	buf_u32(&b, 8);
	buf_u32(&b, 5000); /* no errno */
	buf_u32(&b, 0);
	reader_init(&r, b.data, b.size);
	assert_int_equal(fileop_get_result(&r, &body), -EPROTO);
	reader_init(&r, b.data, 7);
	assert_int_equal(fileop_get_result(&r, &body), -EPROTO);
	reader_init(&r, b.data, b.size);
	assert_int_equal(fileop_get_reply(&r, 1, &head), -EPROTO);
	reader_init(&r, b.data, b.size);
	assert_int_equal(fileop_get_attr(&r, &a), -EPROTO);
	struct fileop_attr big = {.size = UINT64_MAX};
	buf_clear(&b);
	fileop_put_attr(&b, &big);
	reader_init(&r, b.data, b.size);
	assert_int_equal(fileop_get_attr(&r, &a), -EPROTO);
}

static void test_formats_are_read_as_they_were_written(void **state)
{
	(void)state;
	AUTO_BUF b = BUF_INIT;
	struct reader r;
	struct fileop_attr got,
		a = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, {-12, 13}, {14, 15}, {16, 17}, {18, 999999999}};
	struct fileop_setattr sgot, s = {1, 2, 3, 4, 5, {6, 7}, {-8, 9}};
	fileop_put_attr(&b, &a);
	fileop_put_setattr(&b, &s);
	reader_init(&r, b.data, b.size);
	memset(&got, 0, sizeof(got));
	memset(&sgot, 0, sizeof(sgot));
	assert_int_equal(fileop_get_attr(&r, &got), 0);
	assert_int_equal(fileop_get_setattr(&r, &sgot), 0);
	assert_int_equal(r.left, 0);
	assert_memory_equal(&got, &a, sizeof(a));
	assert_memory_equal(&sgot.size, &s.size, sizeof(s) - offsetof(struct fileop_setattr, size));
	assert_int_equal(sgot.valid, 1);
}

/* --- threads --- */

enum { THREADS = 4, ROUNDS = 300 };

struct worker {
	struct rig rig; /* of the same server */
	unsigned number;
	int failures;
};

static pthread_mutex_t numbers = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t answered = PTHREAD_COND_INITIALIZER;
static uint64_t next_seq = 1;
static uint64_t under_way[THREADS]; /* of each thread; 0: none */

static uint64_t oldest_under_way(void)
{
	uint64_t oldest = next_seq;
	for (unsigned i = 0; i < THREADS; i++)
		if (under_way[i] && under_way[i] < oldest)
			oldest = under_way[i];
	return oldest;
}

/* What its thread had under way has been answered. */
static void is_answered(const struct worker *w)
{
	pthread_mutex_lock(&numbers);
	under_way[w->number] = 0;
	pthread_cond_broadcast(&answered);
	pthread_mutex_unlock(&numbers);
}

/*
 * Batches of one client get their numbers in order, from whichever thread. One that thousands overtake would be refused: a thread
 * that does not get to run is waited for.
 */
static struct rig *numbered(struct worker *w)
{
	is_answered(w);
	pthread_mutex_lock(&numbers);
	while (next_seq - oldest_under_way() >= 1000)
		pthread_cond_wait(&answered, &numbers);
	w->rig.seq = under_way[w->number] = next_seq++;
	w->rig.acked = oldest_under_way() - 1;
	pthread_mutex_unlock(&numbers);
	return &w->rig;
}

/* All write, read, commit, close and open one shared handle and one of their own. */
static void *work(void *arg)
{
	struct worker *w = arg;
	char name[32];
	for (unsigned i = 0; i < ROUNDS; i++) {
		uint64_t own = 1000 + w->number;
		snprintf(name, sizeof(name), "own-%u-%u", w->number, i % 10);
		w->failures += op_open(numbered(w), own, name, STAGE_OVER, 0644, NULL) < 0;
		w->failures += op_write(numbered(w), own, 0, name, strlen(name)) < 0;
		op_open(numbered(w), 1, "shared", STAGE_OVER, 0644, NULL);
		op_write(numbered(w), 1, i, "shared", 6);
		op_read(numbered(w), 1, "", 0, 100, NULL);
		w->failures += op_commit(numbered(w), own, NULL) < 0;
		op_commit(numbered(w), 1, NULL);
		op_getattr(numbered(w), 1, "", NULL);
		op_close(numbered(w), 1);
		w->failures += op_close(numbered(w), own) < 0;
		fileop_expire(w->rig.s, fileop_now_ms() + 61000);
	}
	is_answered(w);
	return NULL;
}

static void test_threads_on_the_same_handles(void **state)
{
	struct rig *r = *state;
	struct worker w[THREADS] = {0};
	pthread_t thread[THREADS];
	for (unsigned i = 0; i < THREADS; i++) {
		w[i].rig = (struct rig){.s = r->s};
		memcpy(w[i].rig.dir, r->dir, sizeof(r->dir));
		memcpy(w[i].rig.client, r->client, sizeof(r->client));
		w[i].number = i;
		assert_int_equal(pthread_create(&thread[i], NULL, work, &w[i]), 0);
	}
	for (unsigned i = 0; i < THREADS; i++) {
		pthread_join(thread[i], NULL);
		assert_int_equal(w[i].failures, 0);
		rig_release(&w[i].rig);
	}
	assert_file(r, "own-3-9", "own-3-9");
}

struct repeat {
	struct rig *r;
	struct buf reply;
	int err;
};

static void *repeat(void *arg)
{
	struct repeat *p = arg;
	p->err = run_again(p->r, &p->reply);
	return NULL;
}

/* The same batch from several connections at once: one does it, all are told the same. */
static void test_a_repetition_waits_for_the_first(void **state)
{
	struct rig *r = *state;
	for (unsigned round = 1; round <= 50; round++) {
		char name[32];
		snprintf(name, sizeof(name), "d%u", round);
		r->seq = round;
		rig_begin(r);
		begin_mkdir(r, name, 0);
		fileop_end_request(&r->request, 1);
		struct repeat p[THREADS] = {0};
		pthread_t thread[THREADS];
		for (unsigned i = 0; i < THREADS; i++) {
			p[i].r = r;
			assert_int_equal(pthread_create(&thread[i], NULL, repeat, &p[i]), 0);
		}
		for (unsigned i = 0; i < THREADS; i++)
			pthread_join(thread[i], NULL);
		for (unsigned i = 0; i < THREADS; i++) {
			assert_int_equal(p[i].err, 0);
			assert_int_equal(first_error(&p[i].reply), 0);
			buf_release(&p[i].reply);
		}
	}
}

#define T(f) cmocka_unit_test_setup_teardown(f, rig_setup, rig_teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(test_ping_and_the_head_of_a_reply),
		T(test_unknown_calls_and_trailing_bytes_are_refused),
		T(test_calls_are_done_in_order_and_each_has_its_errno),
		T(test_the_rest_of_a_batch_depends_on_a_call_that_must),
		T(test_a_repeated_batch_gets_the_same_reply_and_is_done_once),
		T(test_an_abandoned_batch_that_comes_late_is_refused),
		T(test_a_repeated_open_has_its_handle),
		T(test_acknowledged_replies_are_dropped_beyond_256),
		T(test_what_is_remembered_is_bounded),
		T(test_clients_are_bounded),
		T(test_handles_end_with_the_lease),
		T(test_what_is_no_batch_does_nothing),
		T(test_garbage_gets_errors),
		T(test_threads_on_the_same_handles),
		T(test_a_repetition_waits_for_the_first),
		cmocka_unit_test(test_a_client_does_not_believe_a_reply),
		cmocka_unit_test(test_formats_are_read_as_they_were_written),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
