/* links: contrib/common/buf.c contrib/common/spool.c sandboxfs/http.c sandboxfs/http_loop.c sandboxfs/call.c sandboxfs/log.c sandboxfs/api_error.c sandboxfs/frame_parser.c sandboxfs/keeper.c sandboxfs/output.c sandboxfs/cancel.c sandboxfs/feed.c sandboxfs/process.c sandboxfs/run.c sandboxfs/run_table.c */
#include "run_rig.h"

#include "feed.h"
#include "output.h"
#include "run.h"

static char pattern[300000];

static void make_pattern(void)
{
	for (size_t i = 0; i < sizeof pattern; i++)
		pattern[i] = (char)(i * 31 + i / 257);
}

struct started {
	struct run_table *table;
	struct run *run;
	struct call call;
	int err;
};

static void start(struct rig *r, struct started *s)
{
	struct run_spec spec = {.command = "true", .size = 4};

	call_init(&s->call, 0);
	assert_int_equal(run_table_new(&r->sandbox, &s->table), 0);
	assert_int_equal(run_new(s->table, &s->run), 0);
	s->err = run_start(s->run, &s->call, &spec);
}

static void finish(struct started *s)
{
	run_put(s->run);
	run_table_free(s->table);
	call_destroy(&s->call);
}

static void assert_output(struct run *run, const char *want, size_t n)
{
	char *got = malloc(n + 1);
	size_t at = 0;

	assert_int_equal(spool_size(run_spool(run), SPOOL_BOTH), n);
	while (at < n) {
		ssize_t part = spool_pread(run_spool(run), SPOOL_BOTH, got + at, n - at, at, NULL, NULL);
		assert_true(part > 0);
		at += (size_t)part;
	}
	assert_memory_equal(got, want, n);
	free(got);
}

static void a_run_keeps_output_and_exit_code(void **state)
{
	struct rig r;
	struct started s;
	bool timed_out;

	(void)state;
	rig_open(&r);
	r.output = pattern;
	r.size = 100000;
	r.piece = 777;
	r.exit_code = 3;
	start(&r, &s);
	assert_int_equal(s.err, 0);
	assert_int_equal(run_wait(s.run, &s.call), 0);
	assert_int_equal(run_state(s.run), RUN_ENDED);
	assert_int_equal(run_exit(s.run, &timed_out), 3);
	assert_false(timed_out);
	assert_output(s.run, pattern, 100000);
	assert_true(atomic_load(&r.sandbox.heard) > 0);
	assert_int_equal(atomic_load(&r.sandbox.unheard), 0);
	assert_true(spool_ended(run_spool(s.run)));
	assert_non_null(strstr(r.request, "\"command\":\"true\""));
	finish(&s);
	rig_close(&r);
}

static void a_link_cut_at_any_byte_loses_and_repeats_nothing(void **state)
{
	(void)state;
	for (long cut = 1; cut < 130; cut += 3) {
		struct rig r;
		struct started s;

		rig_open(&r);
		r.output = pattern;
		r.size = 60;
		r.piece = 7;
		r.exit_code = 5;
		for (int i = 0; i < 3; i++)
			r.plans[i] = (struct rig_plan){.used = true, .cut = cut + i * 10, .plain = cut % 2};
		r.plans[3] = (struct rig_plan){.used = true, .cut = -1};
		start(&r, &s);
		assert_int_equal(s.err, 0);
		assert_int_equal(run_wait(s.run, &s.call), 0);
		assert_int_equal(run_exit(s.run, NULL), 5);
		assert_output(s.run, pattern, 60);
		finish(&s);
		rig_close(&r);
	}
}

static void many_cuts_of_a_long_output(void **state)
{
	struct rig r;
	struct started s;

	(void)state;
	rig_open(&r);
	r.output = pattern;
	r.size = sizeof pattern;
	r.piece = 1000;
	for (int i = 0; i < 20; i++)
		r.plans[i] = (struct rig_plan){.used = true, .cut = 15000 + i * 7};
	r.plans[20] = (struct rig_plan){.used = true, .cut = -1};
	start(&r, &s);
	assert_int_equal(run_wait(s.run, &s.call), 0);
	assert_output(s.run, pattern, sizeof pattern);
	assert_int_equal(r.attaches, 20);
	assert_int_equal(r.starts, 1);
	finish(&s);
	rig_close(&r);
}

static void a_gap_is_kept_as_a_gap(void **state)
{
	struct rig r;
	struct started s;
	char got[100];
	uint64_t next = 0;

	(void)state;
	rig_open(&r);
	r.output = pattern;
	r.size = 50;
	r.piece = 50;
	r.missing = 20;
	start(&r, &s);
	assert_int_equal(run_wait(s.run, &s.call), 0);
	assert_int_equal(spool_size(run_spool(s.run), SPOOL_BOTH), 50);
	assert_int_equal(
		spool_pread(run_spool(s.run), SPOOL_BOTH, got, sizeof got, 0, NULL, &next), -ESPIPE);
	assert_int_equal(next, 20);
	finish(&s);
	rig_close(&r);
}

static void a_sandbox_that_forgot_the_run_makes_its_end_unknown(void **state)
{
	struct rig r;
	struct started s;
	struct fault f = {0};

	(void)state;
	rig_open(&r);
	r.output = pattern;
	r.size = 1000;
	r.piece = 10;
	r.plans[0] = (struct rig_plan){.used = true, .cut = 500};
	r.plans[1] =
		(struct rig_plan){.used = true, .status = 404, .body = "{\"code\":\"PROCESS_NOT_FOUND\"}"};
	start(&r, &s);
	assert_int_equal(s.err, 0);
	assert_int_equal(run_wait(s.run, &s.call), -ESTALE);
	assert_int_equal(run_state(s.run), RUN_UNKNOWN);
	run_fault(s.run, &f);
	assert_int_equal(f.err, ESTALE);
	assert_non_null(strstr(f.message, "its exit code is unknown; see runs/1"));
	fault_clear(&f);
	finish(&s);
	rig_close(&r);
}

static void a_replaced_sandbox_makes_the_end_unknown(void **state)
{
	struct rig r;
	struct started s;

	(void)state;
	rig_open(&r);
	r.output = pattern;
	r.size = 100;
	r.piece = 10;
	r.plans[0] = (struct rig_plan){.used = true, .cut = 100};
	atomic_store(&r.sandbox.replaced, true);
	start(&r, &s);
	assert_int_equal(run_wait(s.run, &s.call), -ESTALE);
	assert_int_equal(r.attaches, 0);
	finish(&s);
	rig_close(&r);
}

static void nonsense_is_never_a_success(void **state)
{
	static const char nonsense[] = "\x02\x01 0\xff\xff\xff\xff________and so on";
	struct rig r;
	struct started s;

	(void)state;
	rig_open(&r);
	r.plans[0] = (struct rig_plan){.used = true, .status = 200, .body = nonsense};
	start(&r, &s);
	assert_int_equal(s.err, -EPROTO);
	assert_int_equal(run_state(s.run), RUN_UNKNOWN);
	finish(&s);
	rig_close(&r);
}

static void a_refused_start_has_its_errno_and_no_exit_code(void **state)
{
	struct rig r;
	struct started s;

	(void)state;
	rig_open(&r);
	r.plans[0] = (struct rig_plan){.used = true,
		.status = 500,
		.body = "{\"code\":\"COMMAND_EXECUTION_ERROR\",\"message\":\"ENOENT: no such file or "
				"directory, posix_spawn '/bin/bash'\"}"};
	start(&r, &s);
	assert_int_equal(s.err, -ENOENT);
	assert_int_equal(s.call.fault.err, ENOENT);
	assert_int_equal(run_state(s.run), RUN_REFUSED);
	assert_false(run_has_begun(s.run));
	assert_int_equal(run_wait(s.run, &s.call), -ENOENT);
	assert_true(spool_ended(run_spool(s.run)));
	finish(&s);
	rig_close(&r);
}

static void a_start_without_an_answer_ends_and_is_cancelled(void **state)
{
	struct rig r;
	struct started s;

	(void)state;
	rig_open(&r);
	r.sandbox.options.timeout_ms = 2000; /* for sending it too: what was not sent was not run */
	r.plans[0] = (struct rig_plan){.used = true, .mute = true};
	start(&r, &s);
	assert_int_equal(s.err, -ETIMEDOUT);
	assert_int_equal(atomic_load(&r.sandbox.unheard), -ETIMEDOUT);
	assert_int_equal(run_state(s.run), RUN_UNKNOWN);
	rig_await(&r, &r.cancels, 1);
	finish(&s);
	rig_close(&r);
}

static void a_server_that_takes_no_connection_did_not_run_it(void **state)
{
	struct rig r;
	struct started s;

	(void)state;
	rig_open(&r);
	unlink(r.path);
	start(&r, &s);
	assert_int_equal(s.err, -EHOSTUNREACH);
	assert_int_equal(atomic_load(&r.sandbox.unheard), -EHOSTUNREACH);
	assert_int_equal(run_state(s.run), RUN_REFUSED);
	assert_true(atomic_load(&r.sandbox.ready_calls) >= 2); /* it was given a chance to start */
	finish(&s);
	rig_close(&r);
}

static void *cancel_when_asked(void *arg)
{
	struct {
		struct rig *r;
		struct call *c;
	} *x = arg;

	rig_await(x->r, &x->r->starts, 1);
	call_cancel(x->c);
	return NULL;
}

static void a_start_can_be_cancelled_before_its_answer(void **state)
{
	struct rig r;
	struct run_table *table;
	struct run *run;
	struct call c;
	struct run_spec spec = {.command = "sleep 1d", .size = 8};
	struct {
		struct rig *r;
		struct call *c;
	} x = {&r, &c};
	pthread_t t;

	(void)state;
	rig_open(&r);
	r.plans[0] = (struct rig_plan){.used = true, .mute = true};
	call_init(&c, 0);
	assert_int_equal(run_table_new(&r.sandbox, &table), 0);
	assert_int_equal(run_new(table, &run), 0);
	assert_int_equal(pthread_create(&t, NULL, cancel_when_asked, &x), 0);
	assert_int_equal(run_start(run, &c, &spec), -EINTR);
	pthread_join(t, NULL);
	rig_await(&r, &r.cancels, 1);
	run_put(run);
	run_table_free(table);
	call_destroy(&c);
	rig_close(&r);
}

static void a_cancel_reaches_the_sandbox(void **state)
{
	struct rig r;
	struct started s;

	(void)state;
	rig_open(&r);
	r.output = pattern;
	r.size = 100;
	r.piece = 10;
	r.plans[0] = (struct rig_plan){.used = true, .cut = 60}; /* started, and goes on */
	r.plans[1] = (struct rig_plan){.used = true, .mute = true};
	start(&r, &s);
	assert_int_equal(s.err, 0);
	run_cancel(s.run);
	rig_await(&r, &r.cancels, 1);
	finish(&s);
	rig_close(&r);
}

static void a_cancel_is_sent_even_if_the_sandbox_ends_at_once(void **state)
{
	struct rig r;

	(void)state;
	rig_open(&r);
	assert_int_equal(output_cancel(&r.sandbox, "late"), 0);
	rig_close(&r);
	assert_int_equal(r.cancels, 1);
}

static void the_end_of_the_table_cancels_what_runs(void **state)
{
	struct rig r;
	struct started s;

	(void)state;
	rig_open(&r);
	r.output = pattern;
	r.size = 100;
	r.piece = 10;
	r.plans[0] = (struct rig_plan){.used = true, .cut = 60};
	r.plans[1] = (struct rig_plan){.used = true, .mute = true};
	start(&r, &s);
	run_get(s.run);
	run_put(s.run);
	run_table_free(s.table);
	assert_int_equal(r.cancels, 1);
	assert_int_equal(run_state(s.run), RUN_UNKNOWN);
	assert_true(spool_ended(run_spool(s.run)));
	run_put(s.run);
	call_destroy(&s.call);
	rig_close(&r);
}

static bool count_runs(struct run *r, void *arg)
{
	unsigned *seen = arg;

	assert_true(run_number(r) > seen[1]);
	seen[1] = (unsigned)run_number(r);
	seen[0]++;
	return true;
}

static void the_newest_sixteen_are_kept_and_last_is_by_its_beginning(void **state)
{
	struct rig r;
	struct run_table *table;
	struct run *first, *run;
	struct call c;
	struct run_spec spec = {.command = "true", .size = 4};
	unsigned seen[2] = {0, 0};

	(void)state;
	rig_open(&r);
	call_init(&c, 0);
	assert_int_equal(run_table_new(&r.sandbox, &table), 0);
	assert_null(run_table_last(table));
	assert_int_equal(run_new(table, &first), 0);
	for (int i = 0; i < 20; i++) {
		assert_int_equal(run_new(table, &run), 0);
		assert_int_equal(run_start(run, &c, &spec), 0);
		assert_int_equal(run_wait(run, &c), 0);
		run_put(run);
	}
	run_table_each(table, count_runs, seen);
	assert_int_equal(seen[0], 17); /* and the one that is held */
	assert_null(run_table_find(table, 5));
	run = run_table_last(table);
	assert_int_equal(run_number(run), 21);
	run_put(run);
	assert_int_equal(run_start(first, &c, &spec), 0);
	run = run_table_last(table);
	assert_int_equal(run_number(run), 1);
	run_put(run);
	assert_int_equal(run_wait(first, &c), 0);
	run_put(first);
	run_table_free(table);
	call_destroy(&c);
	rig_close(&r);
}

/* --- feeds --- */

struct puller {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	bool woken;
};

static void pull_wake(void *arg)
{
	struct puller *p = arg;

	pthread_mutex_lock(&p->lock);
	p->woken = true;
	pthread_cond_signal(&p->cond);
	pthread_mutex_unlock(&p->lock);
}

static void a_slow_reader_gets_everything_in_bounded_memory(void **state)
{
	struct rig r;
	struct puller p = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false};
	struct feed *f;
	struct feed_item item;
	size_t size = 8 << 20, at = 0;
	char *big = malloc(size);
	int got;

	(void)state;
	for (size_t i = 0; i < size; i++)
		big[i] = pattern[i % sizeof pattern];
	rig_open(&r);
	r.output = big;
	r.size = size;
	r.piece = 100000;
	r.plans[0] = (struct rig_plan){.used = true, .cut = 3000000};
	r.plans[1] = (struct rig_plan){.used = true, .cut = -1};
	assert_int_equal(feed_new(&r.sandbox, pull_wake, &p, &f), 0);
	assert_int_equal(feed_attach(f, "x", 0), 0);
	for (;;) {
		got = feed_next(f, &item);
		if (got == -EAGAIN) {
			pthread_mutex_lock(&p.lock);
			while (!p.woken)
				pthread_cond_wait(&p.cond, &p.lock);
			p.woken = false;
			pthread_mutex_unlock(&p.lock);
			continue;
		}
		assert_int_equal(got, 1);
		if (item.kind == FEED_EXIT)
			break;
		assert_int_equal(item.kind, FEED_DATA);
		assert_true(at + item.n <= size);
		assert_memory_equal(item.p, big + at, item.n);
		at += item.n;
	}
	assert_int_equal(at, size);
	assert_int_equal(feed_next(f, &item), 0);
	feed_close(f);
	free(big);
	rig_close(&r);
}

static void a_feed_can_be_closed_at_any_time(void **state)
{
	struct rig r;
	struct puller p = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false};

	(void)state;
	rig_open(&r);
	r.output = pattern;
	r.size = sizeof pattern;
	r.piece = 1000;
	for (int i = 0; i < 50; i++) {
		struct feed *f;
		struct feed_item item;

		assert_int_equal(feed_new(&r.sandbox, pull_wake, &p, &f), 0);
		if (i % 5)
			assert_int_equal(feed_attach(f, "x", (uint64_t)i), 0);
		for (int j = 0; j < i % 7; j++)
			(void)feed_next(f, &item);
		feed_close(f);
	}
	rig_close(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_run_keeps_output_and_exit_code),
		cmocka_unit_test(a_link_cut_at_any_byte_loses_and_repeats_nothing),
		cmocka_unit_test(many_cuts_of_a_long_output),
		cmocka_unit_test(a_gap_is_kept_as_a_gap),
		cmocka_unit_test(a_sandbox_that_forgot_the_run_makes_its_end_unknown),
		cmocka_unit_test(a_replaced_sandbox_makes_the_end_unknown),
		cmocka_unit_test(nonsense_is_never_a_success),
		cmocka_unit_test(a_refused_start_has_its_errno_and_no_exit_code),
		cmocka_unit_test(a_start_without_an_answer_ends_and_is_cancelled),
		cmocka_unit_test(a_server_that_takes_no_connection_did_not_run_it),
		cmocka_unit_test(a_start_can_be_cancelled_before_its_answer),
		cmocka_unit_test(a_cancel_reaches_the_sandbox),
		cmocka_unit_test(a_cancel_is_sent_even_if_the_sandbox_ends_at_once),
		cmocka_unit_test(the_end_of_the_table_cancels_what_runs),
		cmocka_unit_test(the_newest_sixteen_are_kept_and_last_is_by_its_beginning),
		cmocka_unit_test(a_slow_reader_gets_everything_in_bounded_memory),
		cmocka_unit_test(a_feed_can_be_closed_at_any_time),
	};

	make_pattern();
	alarm(120); /* a wait that never ends is a failure */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
