/* links: contrib/common/buf.c sandboxfs/http.c sandboxfs/http_loop.c sandboxfs/websocket_handshake.c sandboxfs/wire.c sandboxfs/call.c sandboxfs/shown.c sandboxfs/log.c */
/* Requests over HTTP: who counts them, and what a connection that breaks is told as; of a wire's as well. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "http.h"
#include "wire.h"

/* --- a server that reads something and breaks the connection --- */

struct breaker {
	int fd;
	pthread_t thread;
	char base[64];
};

static void *break_all(void *arg)
{
	struct breaker *b = arg;
	int fd;
	while ((fd = accept(b->fd, NULL, NULL)) >= 0) {
		char some[1];
		(void)!recv(fd, some, sizeof some, 0);
		(void)setsockopt(fd, SOL_SOCKET, SO_LINGER, &(struct linger){1, 0}, sizeof(struct linger));
		close(fd);
	}
	return NULL;
}

static void breaker_open(struct breaker *b, const char *scheme)
{
	struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t size = sizeof at;
	b->fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(b->fd, (struct sockaddr *)&at, size), 0);
	assert_int_equal(listen(b->fd, 8), 0);
	assert_int_equal(getsockname(b->fd, (struct sockaddr *)&at, &size), 0);
	snprintf(b->base, sizeof b->base, "%s://127.0.0.1:%u", scheme, ntohs(at.sin_port));
	assert_int_equal(pthread_create(&b->thread, NULL, break_all, b), 0);
}

static void breaker_close(struct breaker *b)
{
	shutdown(b->fd, SHUT_RDWR);
	pthread_join(b->thread, NULL);
	close(b->fd);
}

/* What a GET there ends with. */
static int get(const struct http_target *target, bool never_waits)
{
	struct http_request r = {.target = target, .method = "GET", .path = "/", .timeout_ms = 20000};
	struct http_reply reply;
	struct http *h;
	struct call c;
	call_init(&c, 0);
	c.never_waits = never_waits;
	assert_int_equal(http_new(&h), 0);
	int err = http_exchange(h, &c, &r, &reply);
	http_free(h);
	buf_release(&reply.body);
	call_destroy(&c);
	return err;
}

static int open_wire(const char *base)
{
	struct http_target target = {.base = (char *)base};
	struct wire *w = NULL;
	struct call c;
	call_init(&c, 0);
	int err = wire_open(&c, &target, "/", call_now_ms() + 20000, &w);
	assert_true(err < 0);
	assert_int_equal(c.fault.err, -err);
	assert_non_null(c.fault.message);
	call_destroy(&c);
	return err;
}

static void a_request_counts_while_it_runs_and_not_longer(void **state)
{
	atomic_int running = 0;
	struct http_target target = {.base = "http://127.0.0.1:1", .running = &running};
	(void)state;
	assert_int_equal(get(&target, false), -EHOSTUNREACH);
	assert_int_equal(atomic_load(&running), 0);
	assert_int_equal(get(&target, true), -ENOMEM);
	assert_int_equal(atomic_load(&running), 0);
}

static void what_breaks_off_is_a_broken_connection(void **state)
{
	static const char *const schemes[] = {"http", "https"};
	(void)state;
	for (size_t i = 0; i < sizeof schemes / sizeof *schemes; i++) {
		struct breaker b;
		breaker_open(&b, schemes[i]);
		struct http_target target = {.base = b.base};
		assert_int_equal(get(&target, false), -ECONNRESET);
		int err = open_wire(b.base);
		assert_true(err == -EAGAIN || err == -ECONNRESET);
		breaker_close(&b);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_request_counts_while_it_runs_and_not_longer),
		cmocka_unit_test(what_breaks_off_is_a_broken_connection),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
