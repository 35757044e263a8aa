/* links: tests/unit/mux_rig.c contrib/common/buf.c contrib/common/mux.c contrib/common/mux_connection.c */
/* The tunnel over a carrier that does wrong, and with a peer that breaks the protocol. */
#include "mux_rig.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>
#include <zlib.h>

/* A byte goes wrong at each of many places; what came out before is right, and it ends. */
static void no_wrong_byte_comes_out(void **state)
{
	(void)state;
	static const uint64_t places[] = {
		0, 3, 4, 9, 12, 13, 14, 15, 16, 17, 40, 20000, 100001, 499999};
	for (enum fault fault = FAULT_FLIP; fault <= FAULT_DOUBLE; fault++) {
		for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
			struct rig r;
			rig_init(&r);
			r.client.wire.fault = fault;
			r.client.wire.fault_at = places[i];
			r.sandbox.spec.silence_ms = 300; /* a length made longer waits for what does not come */
			rig_start(&r);
			int f = front(&r);
			struct talker t = {.fd = f, .size = 1 << 20, .k = 5};
			pthread_create(&t.writer, NULL, talker_write, &t);
			int rc = side_end(&r.sandbox);
			assert_true(rc == -EPROTO || rc == -ETIMEDOUT);
			struct pollfd p = {.fd = r.back_fd, .events = POLLIN};
			if (poll(&p, 1, 0) == 1) {
				int b = back(&r);
				unsigned char *got = malloc(t.size);
				ssize_t n = receive_all(b, got, t.size);
				if (n > 0) {
					assert_true((size_t)n <= places[i]);
					assert_true(same(got, (size_t)n, 5, 0));
				}
				free(got);
				close(b);
			}
			rig_stop(&r);
			side_end(&r.client);
			pthread_join(t.writer, NULL);
			close(f);
			rig_end(&r);
		}
	}
}

static void silence_ends_it_and_pings_are_heard(void **state)
{
	(void)state;
	struct rig r;
	rig_init(&r);
	r.client.spec.silence_ms = 5000; /* a machine with much to do is silent for a second or two */
	r.client.spec.ping_ms = r.sandbox.spec.ping_ms = 50;
	rig_start(&r);
	int f = front(&r);
	int b = back(&r);
	/* longer than the limit without a byte of a connection, and it still works */
	struct pollfd p = {.fd = f, .events = POLLIN};
	assert_int_equal(poll(&p, 1, 5500), 0);
	send_all(b, "x", 1);
	char c;
	assert_int_equal(receive_all(f, &c, 1), 1);
	close(f);
	close(b);
	rig_end(&r);

	rig_init(&r);
	r.client.spec.silence_ms = 200;
	side_start(&r.client);
	assert_int_equal(side_end(&r.client), -ETIMEDOUT);
	rig_end(&r);
}

/* --- a peer that breaks the protocol: bytes straight into the carrier --- */

static bool frame_send(
	int fd, unsigned sequence, unsigned stream, unsigned type, const void *p, size_t n)
{
	unsigned char f[MUX_HEADER + MUX_PAYLOAD];
	memcpy(f + 4, &(uint32_t){sequence}, 4);
	memcpy(f + 8, &(uint32_t){stream}, 4);
	memcpy(f + 12, &(uint16_t){(uint16_t)n}, 2);
	f[14] = (unsigned char)type;
	f[15] = MUX_VERSION;
	if (n)
		memcpy(f + MUX_HEADER, p, n);
	uint32_t check = (uint32_t)crc32(crc32(0, NULL, 0), f + 4, (uInt)(MUX_HEADER - 4 + n));
	memcpy(f, &check, 4);
	for (size_t at = 0; at < MUX_HEADER + n;) {
		ssize_t r = send(fd, f + at, MUX_HEADER + n - at, MSG_NOSIGNAL);
		if (r < 0)
			return false;
		at += (size_t)r;
	}
	return true;
}

static void frame(
	int fd, unsigned sequence, unsigned stream, unsigned type, const void *p, size_t n)
{
	assert_true(frame_send(fd, sequence, stream, type, p, n));
}

struct bad {
	const char *why;
	struct {
		unsigned stream, type;
		const char *p;
		size_t n;
	} frames[4];
};

static void the_peer_is_not_trusted(void **state)
{
	(void)state;
	static const struct bad bads[] = {
		{"data of no connection", {{7, MUX_DATA, "x", 1}}},
		{"data of the carrier", {{0, MUX_DATA, "x", 1}}},
		{"a number left out", {{2, MUX_OPEN, NULL, 0}}},
		{"a number again", {{1, MUX_OPEN, NULL, 0}, {1, MUX_OPEN, NULL, 0}}},
		{"data after its end",
			{{1, MUX_OPEN, NULL, 0}, {1, MUX_END, NULL, 0}, {1, MUX_DATA, "x", 1}}},
		{"two ends", {{1, MUX_OPEN, NULL, 0}, {1, MUX_END, NULL, 0}, {1, MUX_END, NULL, 0}}},
		{"credit not owed", {{1, MUX_OPEN, NULL, 0}, {1, MUX_CREDIT, "\1\0\0\0", 4}}},
		{"an acknowledgement of what was never sent", {{0, MUX_ACK, "\377\0\0\0\0\0\0\0", 8}}},
		{"a length that does not fit", {{0, MUX_ACK, "\0\0\0\0", 4}}},
		{"no data", {{1, MUX_OPEN, NULL, 0}, {1, MUX_DATA, NULL, 0}}},
		{"no such type", {{0, 77, NULL, 0}}},
	};
	for (size_t i = 0; i < sizeof bads / sizeof *bads; i++) {
		struct rig r;
		rig_init(&r);
		side_start(&r.sandbox);
		for (size_t k = 0; k < 4 && (bads[i].frames[k].stream || bads[i].frames[k].type); k++)
			frame(r.client.wire.fd, (unsigned)k, bads[i].frames[k].stream, bads[i].frames[k].type,
				bads[i].frames[k].p, bads[i].frames[k].n);
		if (side_end(&r.sandbox) != -EPROTO)
			fail_msg("%s: %d", bads[i].why, r.sandbox.rc);
		rig_end(&r);
	}
}

static void more_than_the_window_is_refused(void **state)
{
	(void)state;
	struct rig r;
	rig_init(&r);
	side_start(&r.sandbox);
	frame(r.client.wire.fd, 0, 1, MUX_OPEN, NULL, 0);
	static const char zeros[MUX_PAYLOAD];
	/* The service reads nothing, but its socket takes some, and for that there is credit: three times is too much for sure. */
	bool open = true;
	for (unsigned i = 0; open && i <= 3 * MUX_WINDOW / MUX_PAYLOAD; i++)
		open = frame_send(r.client.wire.fd, i + 1, 1, MUX_DATA, zeros, MUX_PAYLOAD);
	assert_int_equal(side_end(&r.sandbox), -EPROTO);
	rig_end(&r);
}

/* Frames of a connection that has just ended here are late, not wrong. */
static void late_frames_are_ignored(void **state)
{
	(void)state;
	struct rig r;
	rig_init(&r);
	r.sandbox.spec.connect_arg = r.dir;
	side_start(&r.sandbox);
	int fd = r.client.wire.fd;
	frame(fd, 0, 1, MUX_OPEN, NULL, 0);
	frame(fd, 1, 1, MUX_DATA, "x", 1);
	frame(fd, 2, 1, MUX_CREDIT, "\1\0\0\0", 4);
	frame(fd, 3, 1, MUX_END, NULL, 0);
	frame(fd, 4, 1, MUX_RESET, NULL, 0);
	unsigned char answer[MUX_HEADER];
	assert_int_equal(receive_all(fd, answer, sizeof answer), MUX_HEADER);
	assert_int_equal(answer[14], MUX_RESET);
	rig_end(&r);
	assert_int_equal(r.sandbox.rc, -EPIPE);
}

static void the_sandbox_side_may_not_open(void **state)
{
	(void)state;
	struct rig r;
	rig_init(&r);
	side_start(&r.client);
	frame(r.sandbox.wire.fd, 0, 1, MUX_OPEN, NULL, 0);
	assert_int_equal(side_end(&r.client), -EPROTO);
	rig_end(&r);
}

/* The type of the next frame; its payload is skipped. */
static unsigned next_type(int fd)
{
	unsigned char f[MUX_HEADER + MUX_PAYLOAD];
	assert_int_equal(receive_all(fd, f, MUX_HEADER), MUX_HEADER);
	ssize_t n = f[12] | f[13] << 8;
	assert_int_equal(receive_all(fd, f + MUX_HEADER, (size_t)n), n);
	return f[14];
}

/* All places are taken, one by a connection that has ended over there and whose reader is slow: while nobody else comes, it is left. */
static void what_is_drained_is_not_cut_off_for_nobody(void **state)
{
	(void)state;
	struct rig r;
	static char text[MUX_PAYLOAD];
	int fronts[MUX_CONNECTIONS];
	rig_init(&r);
	r.client.spec.ping_ms = 50;
	side_start(&r.client);
	int fd = r.sandbox.wire.fd;
	unsigned sequence = 0;
	fronts[0] = front(&r);
	while (next_type(fd) != MUX_OPEN)
		;
	for (size_t sent = 0; sent < MUX_WINDOW; sent += sizeof text)
		frame(fd, sequence++, 1, MUX_DATA, text, sizeof text);
	frame(fd, sequence++, 1, MUX_END, NULL, 0);
	frame(fd, sequence++, 1, MUX_RESET, NULL, 0);
	for (unsigned i = 1; i < MUX_CONNECTIONS; i++) {
		fronts[i] = front(&r);
		while (next_type(fd) != MUX_OPEN)
			;
	}
	while (next_type(fd) != MUX_PING)
		;
	for (size_t got = 0; got < MUX_WINDOW; got += sizeof text)
		assert_int_equal(receive_all(fronts[0], text, sizeof text), sizeof text);
	assert_int_equal(receive_all(fronts[0], text, 1), 0);
	for (unsigned i = 0; i < MUX_CONNECTIONS; i++)
		close(fronts[i]);
	rig_end(&r);
}

int main(void)
{
	rig_raise_limit();
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_wrong_byte_comes_out),
		cmocka_unit_test(silence_ends_it_and_pings_are_heard),
		cmocka_unit_test(the_peer_is_not_trusted),
		cmocka_unit_test(more_than_the_window_is_refused),
		cmocka_unit_test(late_frames_are_ignored),
		cmocka_unit_test(the_sandbox_side_may_not_open),
		cmocka_unit_test(what_is_drained_is_not_cut_off_for_nobody),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
