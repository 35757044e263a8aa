/* links: contrib/common/buf.c contrib/common/mux.c contrib/common/mux_connection.c */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "mux.h"

/* --- a carrier over one end of a socketpair, which can be made to do wrong --- */

enum fault { FAULT_NONE, FAULT_FLIP, FAULT_DROP, FAULT_DOUBLE };

struct wire {
	int fd;
	enum fault fault;
	uint64_t fault_at; /* byte of what is written */
	uint64_t written;
	size_t most; /* bytes in one read or write; 0: as many as go */
};

static int wire_poll_fd(void *arg)
{
	return ((struct wire *)arg)->fd;
}

static short wire_poll_events(void *arg, int wants_write)
{
	(void)arg;
	return wants_write ? POLLIN | POLLOUT : POLLIN;
}

static int wire_read(void *arg, void *p, size_t size, size_t *n)
{
	struct wire *w = arg;
	if (w->most && size > w->most)
		size = w->most;
	ssize_t r = recv(w->fd, p, size, MSG_DONTWAIT);
	if (r < 0)
		return errno == ECONNRESET ? -EPIPE : -errno;
	*n = (size_t)r;
	return r ? 0 : -EPIPE;
}

static int wire_send(struct wire *w, const void *p, size_t size, size_t *n)
{
	ssize_t r = send(w->fd, p, size, MSG_DONTWAIT | MSG_NOSIGNAL);
	if (r < 0)
		return -errno;
	*n = (size_t)r;
	w->written += (uint64_t)r;
	return 0;
}

static int wire_write(void *arg, const void *p, size_t size, size_t *n)
{
	struct wire *w = arg;
	if (!size)
		return 0;
	if (w->most && size > w->most)
		size = w->most;
	if (w->fault == FAULT_NONE || w->written + size <= w->fault_at)
		return wire_send(w, p, size, n);
	if (w->written < w->fault_at)
		return wire_send(w, p, (size_t)(w->fault_at - w->written), n);
	enum fault fault = w->fault;
	char c = *(const char *)p;
	if (fault == FAULT_DROP) {
		w->fault = FAULT_NONE;
		w->written++;
		*n = 1;
		return 0;
	}
	if (fault == FAULT_FLIP)
		c = (char)(c ^ 4);
	char twice[2] = {c, c};
	size_t sent = 0;
	int rc = wire_send(w, twice, fault == FAULT_DOUBLE ? 2 : 1, &sent);
	if (rc)
		return rc;
	w->fault = FAULT_NONE;
	*n = 1;
	return 0;
}

/* --- two sides and an echo service --- */

struct side {
	struct mux_spec spec;
	struct wire wire;
	pthread_t thread;
	int rc;
	bool joined;
};

struct rig {
	char dir[64];
	char front[96], back[96];
	struct side client, sandbox;
	int front_fd, back_fd, stop;
};

static void *side_run(void *arg)
{
	struct side *s = arg;
	s->rc = mux_run(&s->spec);
	shutdown(s->wire.fd, SHUT_RDWR);
	return NULL;
}

static int side_end(struct side *s)
{
	if (!s->joined)
		pthread_join(s->thread, NULL);
	s->joined = true;
	return s->rc;
}

static struct sockaddr_un address(const char *path)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	snprintf(a.sun_path, sizeof a.sun_path, "%s", path);
	return a;
}

static int listen_at(const char *path)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_true(fd >= 0);
	struct sockaddr_un a = address(path);
	assert_int_equal(bind(fd, (struct sockaddr *)&a, sizeof a), 0);
	assert_int_equal(listen(fd, 512), 0);
	return fd;
}

static int connect_to(const char *path)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0)
		return -errno;
	struct sockaddr_un a = address(path);
	if (connect(fd, (struct sockaddr *)&a, sizeof a)) {
		int e = errno;
		close(fd);
		return -e;
	}
	return fd;
}

static int back_connect(void *arg)
{
	int fd = connect_to(arg);
	if (fd >= 0)
		fcntl(fd, F_SETFL, O_NONBLOCK);
	return fd;
}

static void side_init(struct side *s, int fd, int listener, struct rig *r)
{
	*s = (struct side){.wire = {.fd = fd}, .joined = true};
	s->spec = (struct mux_spec){
		.carrier = {wire_poll_fd, wire_poll_events, wire_read, wire_write, &s->wire},
		.listener = listener,
		.connect = back_connect,
		.connect_arg = r->back,
		.stop_fd = -1,
	};
}

static void rig_init(struct rig *r)
{
	*r = (struct rig){.stop = -1};
	strcpy(r->dir, "/tmp/mux.XXXXXX");
	assert_non_null(mkdtemp(r->dir));
	snprintf(r->front, sizeof r->front, "%s/front", r->dir);
	snprintf(r->back, sizeof r->back, "%s/back", r->dir);
	r->front_fd = listen_at(r->front);
	r->back_fd = listen_at(r->back);
	int pair[2];
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	side_init(&r->client, pair[0], r->front_fd, r);
	side_init(&r->sandbox, pair[1], -1, r);
	r->stop = eventfd(0, EFD_CLOEXEC);
	r->client.spec.stop_fd = r->stop;
}

static void side_start(struct side *s)
{
	s->joined = false;
	assert_int_equal(pthread_create(&s->thread, NULL, side_run, s), 0);
}

static void rig_start(struct rig *r)
{
	side_start(&r->client);
	side_start(&r->sandbox);
}

static void rig_stop(struct rig *r)
{
	uint64_t one = 1;
	assert_int_equal(write(r->stop, &one, sizeof one), sizeof one);
}

static void rig_end(struct rig *r)
{
	rig_stop(r);
	side_end(&r->client);
	close(r->client.wire.fd);
	side_end(&r->sandbox);
	close(r->sandbox.wire.fd);
	close(r->stop);
	close(r->front_fd);
	close(r->back_fd);
	unlink(r->front);
	unlink(r->back);
	assert_int_equal(rmdir(r->dir), 0);
}

static int front(struct rig *r)
{
	int fd = connect_to(r->front);
	assert_true(fd >= 0);
	return fd;
}

/* The connection that arrives in the sandbox. */
static int back(struct rig *r)
{
	struct pollfd p = {.fd = r->back_fd, .events = POLLIN};
	assert_int_equal(poll(&p, 1, 20000), 1);
	int fd = accept4(r->back_fd, NULL, NULL, SOCK_CLOEXEC);
	assert_true(fd >= 0);
	struct timeval limit = {.tv_sec = 20};
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	return fd;
}

static void send_all(int fd, const void *p, size_t n)
{
	for (size_t at = 0; at < n;) {
		ssize_t r = send(fd, (const char *)p + at, n - at, MSG_NOSIGNAL);
		assert_true(r > 0);
		at += (size_t)r;
	}
}

/* Bytes until the end of file or an error; -1 for the error. */
static ssize_t receive_all(int fd, void *p, size_t size)
{
	size_t at = 0;
	while (at < size) {
		ssize_t r = recv(fd, (char *)p + at, size - at, 0);
		if (r < 0)
			return -1;
		if (!r)
			break;
		at += (size_t)r;
	}
	return (ssize_t)at;
}

/* Byte number i of connection k. */
static unsigned char byte_at(unsigned k, uint64_t i)
{
	uint64_t x = (i >> 3) * 0x9e3779b97f4a7c15U + k * 0xbf58476d1ce4e5b9U;
	x ^= x >> 29;
	return (unsigned char)(x >> (8 * (i & 7)));
}

static void fill(unsigned char *p, size_t n, unsigned k, uint64_t from)
{
	for (size_t i = 0; i < n; i++)
		p[i] = byte_at(k, from + i);
}

static bool same(const unsigned char *p, size_t n, unsigned k, uint64_t from)
{
	for (size_t i = 0; i < n; i++)
		if (p[i] != byte_at(k, from + i))
			return false;
	return true;
}

/* Echoes each connection to its end on a thread of its own, until told. */
static void *echo_one(void *arg)
{
	int fd = (int)(intptr_t)arg;
	char p[7000];
	ssize_t r;
	while ((r = recv(fd, p, sizeof p, 0)) > 0)
		for (ssize_t at = 0; at < r;) {
			ssize_t w = send(fd, p + at, (size_t)(r - at), MSG_NOSIGNAL);
			if (w < 0)
				break;
			at += w;
		}
	close(fd);
	return NULL;
}

struct echo {
	struct rig *rig;
	pthread_t thread;
	unsigned count;
};

static void *echo_run(void *arg)
{
	struct echo *e = arg;
	pthread_t *threads = calloc(e->count, sizeof *threads);
	for (unsigned i = 0; i < e->count; i++) {
		struct pollfd p = {.fd = e->rig->back_fd, .events = POLLIN};
		poll(&p, 1, -1);
		int fd = accept4(e->rig->back_fd, NULL, NULL, SOCK_CLOEXEC);
		pthread_create(&threads[i], NULL, echo_one, (void *)(intptr_t)fd);
	}
	for (unsigned i = 0; i < e->count; i++)
		pthread_join(threads[i], NULL);
	free(threads);
	return NULL;
}

static void echo_start(struct echo *e, struct rig *r, unsigned count)
{
	*e = (struct echo){.rig = r, .count = count};
	assert_int_equal(pthread_create(&e->thread, NULL, echo_run, e), 0);
}

/* --- one connection of many --- */

struct talker {
	struct rig *rig;
	unsigned k;
	size_t size;
	pthread_t thread, writer;
	int fd;
	bool good;
};

static void *talker_write(void *arg)
{
	struct talker *t = arg;
	unsigned char p[5000];
	for (size_t at = 0; at < t->size;) {
		size_t n = t->size - at < sizeof p ? t->size - at : sizeof p;
		fill(p, n, t->k, at);
		ssize_t r = send(t->fd, p, n, MSG_NOSIGNAL);
		if (r <= 0)
			return NULL;
		at += (size_t)r;
	}
	shutdown(t->fd, SHUT_WR);
	return NULL;
}

static void *talker_run(void *arg)
{
	struct talker *t = arg;
	t->fd = connect_to(t->rig->front);
	pthread_create(&t->writer, NULL, talker_write, t);
	unsigned char p[9000];
	size_t at = 0;
	t->good = true;
	ssize_t r;
	while ((r = recv(t->fd, p, sizeof p, 0)) > 0) {
		t->good &= same(p, (size_t)r, t->k, at);
		at += (size_t)r;
	}
	t->good &= r == 0 && at == t->size;
	pthread_join(t->writer, NULL);
	close(t->fd);
	return NULL;
}

static void talk(struct rig *r, unsigned count, size_t most)
{
	struct echo e;
	echo_start(&e, r, count);
	struct talker *t = calloc(count, sizeof *t);
	unsigned seed = 7;
	for (unsigned i = 0; i < count; i++) {
		t[i] = (struct talker){.rig = r, .k = i, .size = (size_t)rand_r(&seed) % most};
		assert_int_equal(pthread_create(&t[i].thread, NULL, talker_run, &t[i]), 0);
	}
	for (unsigned i = 0; i < count; i++) {
		pthread_join(t[i].thread, NULL);
		assert_true(t[i].good);
	}
	pthread_join(e.thread, NULL);
	free(t);
}

/* --- tests --- */

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
	r.client.spec.silence_ms = 400;
	r.client.spec.ping_ms = r.sandbox.spec.ping_ms = 50;
	rig_start(&r);
	int f = front(&r);
	int b = back(&r);
	/* three times the limit without a byte of a connection, and it still works */
	struct pollfd p = {.fd = f, .events = POLLIN};
	assert_int_equal(poll(&p, 1, 1200), 0);
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

#include <zlib.h>

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
	/* A connection is four descriptors here. */
	struct rlimit files;
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
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
		cmocka_unit_test(no_wrong_byte_comes_out),
		cmocka_unit_test(silence_ends_it_and_pings_are_heard),
		cmocka_unit_test(the_peer_is_not_trusted),
		cmocka_unit_test(more_than_the_window_is_refused),
		cmocka_unit_test(late_frames_are_ignored),
		cmocka_unit_test(what_is_drained_is_not_cut_off_for_nobody),
		cmocka_unit_test(the_sandbox_side_may_not_open),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
