/* links: tests/unit/mux_rig.c contrib/common/buf.c contrib/common/mux.c contrib/common/mux_connection.c */
/* The tunnel between two sides that do what they ought to: connections, their bytes, their ends. */
#include "mux_rig.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static void many_connections_keep_their_bytes_apart(void **state)
{
	(void)state;
	struct rig r;
	rig_init(&r);
	rig_start(&r);
	talk(&r, 60, 3 << 20);
	rig_end(&r);
	assert_int_equal(r.client.rc, 0);
	assert_int_equal(r.sandbox.rc, -EPIPE);
}

static void a_carrier_of_short_reads_and_writes_is_as_good(void **state)
{
	(void)state;
	struct rig r;
	rig_init(&r);
	r.client.wire.most = 7;
	r.sandbox.wire.most = 1000;
	rig_start(&r);
	talk(&r, 10, 200 << 10);
	rig_end(&r);
}

static void more_connections_than_places_wait_for_one(void **state)
{
	(void)state;
	struct rig r;
	rig_init(&r);
	rig_start(&r);
	talk(&r, MUX_CONNECTIONS + 60, 40 << 10);
	rig_end(&r);
}

static void one_direction_ends_before_the_other(void **state)
{
	(void)state;
	struct rig r;
	rig_init(&r);
	rig_start(&r);
	int f = front(&r);
	int b = back(&r);
	send_all(f, "question", 8);
	shutdown(f, SHUT_WR);
	char p[64];
	assert_int_equal(receive_all(b, p, sizeof p), 8);
	send_all(b, "a long answer", 13);
	close(b);
	assert_int_equal(receive_all(f, p, sizeof p), 13);
	assert_memory_equal(p, "a long answer", 13);
	close(f);
	rig_end(&r);
}

/* The peer of a socket that was closed whole sees a hang-up, though no byte is on its way. */
static void a_closed_socket_is_closed_over_there(void **state)
{
	(void)state;
	struct rig r;
	rig_init(&r);
	rig_start(&r);
	for (int turn = 0; turn < 2; turn++) {
		int f = front(&r);
		int b = back(&r);
		close(turn ? b : f);
		struct pollfd p = {.fd = turn ? f : b, .events = 0};
		assert_int_equal(poll(&p, 1, 20000), 1);
		assert_true(p.revents & POLLHUP);
		close(p.fd);
	}
	rig_end(&r);
}

/* As an HTTP server that answers a large upload early: the answer arrives, then the end. */
static void an_answer_before_the_end_of_the_question_arrives(void **state)
{
	(void)state;
	struct rig r;
	rig_init(&r);
	rig_start(&r);
	int f = front(&r);
	int b = back(&r);
	struct talker t = {.fd = f, .size = 8 << 20};
	pthread_create(&t.writer, NULL, talker_write, &t);
	char p[64];
	assert_int_equal(receive_all(b, p, sizeof p), sizeof p);
	send_all(b, "too much", 8);
	close(b);
	ssize_t n = receive_all(f, p, 8);
	assert_int_equal(n, 8);
	assert_memory_equal(p, "too much", 8);
	/* the writer gets its error, here the reader its end */
	pthread_join(t.writer, NULL);
	close(f);
	rig_end(&r);
}

/* Both directions are full, nobody reads, and one side goes away. */
static void a_socket_that_goes_away_with_both_directions_full_is_noticed(void **state)
{
	(void)state;
	struct rig r;
	rig_init(&r);
	rig_start(&r);
	int f = front(&r);
	int b = back(&r);
	struct talker there = {.fd = f, .size = 8 << 20};
	struct talker here = {.fd = b, .size = 8 << 20};
	pthread_create(&there.writer, NULL, talker_write, &there);
	pthread_create(&here.writer, NULL, talker_write, &here);
	/* Nothing tells that both are full but that nothing moves. */
	for (int quiet = 0; quiet < 5;) {
		struct pollfd p[2] = {{.fd = f, .events = POLLOUT}, {.fd = b, .events = POLLOUT}};
		quiet = poll(p, 2, 50) ? 0 : quiet + 1;
	}
	shutdown(f, SHUT_RDWR);
	pthread_join(there.writer, NULL);
	close(f);
	pthread_join(here.writer, NULL); /* its send fails */
	close(b);
	rig_end(&r);
}

static void a_connection_that_nobody_takes_is_reset(void **state)
{
	(void)state;
	struct rig r;
	rig_init(&r);
	r.sandbox.spec.connect_arg = r.dir;
	rig_start(&r);
	int f = front(&r);
	char p[8];
	assert_true(receive_all(f, p, sizeof p) <= 0);
	close(f);
	rig_end(&r);
}

static void a_slow_reader_does_not_stop_the_others(void **state)
{
	(void)state;
	struct rig r;
	rig_init(&r);
	rig_start(&r);
	int f = front(&r);
	int b = back(&r);
	/* More than window and socket buffers hold: the writer stays. */
	struct talker stuck = {.fd = b, .size = 4 << 20, .k = 99};
	pthread_create(&stuck.writer, NULL, talker_write, &stuck);
	talk(&r, 20, 2 << 20);
	unsigned char *p = malloc(stuck.size);
	assert_int_equal(receive_all(f, p, stuck.size), stuck.size);
	assert_true(same(p, stuck.size, 99, 0));
	free(p);
	pthread_join(stuck.writer, NULL);
	close(f);
	close(b);
	rig_end(&r);
}

int main(void)
{
	rig_raise_limit();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(many_connections_keep_their_bytes_apart),
		cmocka_unit_test(a_carrier_of_short_reads_and_writes_is_as_good),
		cmocka_unit_test(more_connections_than_places_wait_for_one),
		cmocka_unit_test(one_direction_ends_before_the_other),
		cmocka_unit_test(a_closed_socket_is_closed_over_there),
		cmocka_unit_test(an_answer_before_the_end_of_the_question_arrives),
		cmocka_unit_test(a_socket_that_goes_away_with_both_directions_full_is_noticed),
		cmocka_unit_test(a_connection_that_nobody_takes_is_reset),
		cmocka_unit_test(a_slow_reader_does_not_stop_the_others),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
