/*
 * The rig of mux_rig.h. Owns a directory, two sockets and the threads of the two sides for each struct rig, and nothing else.
 */
#include "mux_rig.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

void rig_raise_limit(void)
{
	struct rlimit files;
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		(void)setrlimit(RLIMIT_NOFILE, &files);
	}
}

/* --- a carrier over one end of a socketpair, which can be made to do wrong --- */

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

static void *side_run(void *arg)
{
	struct side *s = arg;
	s->rc = mux_run(&s->spec);
	shutdown(s->wire.fd, SHUT_RDWR);
	return NULL;
}

int side_end(struct side *s)
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

void rig_init(struct rig *r)
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

void side_start(struct side *s)
{
	s->joined = false;
	assert_int_equal(pthread_create(&s->thread, NULL, side_run, s), 0);
}

void rig_start(struct rig *r)
{
	side_start(&r->client);
	side_start(&r->sandbox);
}

void rig_stop(struct rig *r)
{
	uint64_t one = 1;
	assert_int_equal(write(r->stop, &one, sizeof one), sizeof one);
}

void rig_end(struct rig *r)
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

int front(struct rig *r)
{
	int fd = connect_to(r->front);
	assert_true(fd >= 0);
	return fd;
}

int back(struct rig *r)
{
	struct pollfd p = {.fd = r->back_fd, .events = POLLIN};
	assert_int_equal(poll(&p, 1, 20000), 1);
	int fd = accept4(r->back_fd, NULL, NULL, SOCK_CLOEXEC);
	assert_true(fd >= 0);
	struct timeval limit = {.tv_sec = 20};
	setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
	return fd;
}

void send_all(int fd, const void *p, size_t n)
{
	for (size_t at = 0; at < n;) {
		ssize_t r = send(fd, (const char *)p + at, n - at, MSG_NOSIGNAL);
		assert_true(r > 0);
		at += (size_t)r;
	}
}

ssize_t receive_all(int fd, void *p, size_t size)
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

bool same(const unsigned char *p, size_t n, unsigned k, uint64_t from)
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

void *talker_write(void *arg)
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

void talk(struct rig *r, unsigned count, size_t most)
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
