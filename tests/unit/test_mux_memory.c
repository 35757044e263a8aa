/* links: contrib/common/buf.c contrib/common/mux.c */
/* A tunnel without memory for one more connection. */
#include <stdbool.h>
#include <stdlib.h>

static _Atomic bool no_memory;
static void *calloc_maybe(size_t n, size_t size);

#define calloc calloc_maybe
#include "../../contrib/common/mux_connection.c"
#undef calloc

#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/un.h>

#include <cmocka.h>

static void *calloc_maybe(size_t n, size_t size)
{
	return atomic_exchange(&no_memory, false) ? NULL : calloc(n, size);
}

static int carrier_fd(void *arg)
{
	return *(int *)arg;
}

static short carrier_events(void *arg, int wants_write)
{
	(void)arg;
	return wants_write ? POLLIN | POLLOUT : POLLIN;
}

static int carrier_read(void *arg, void *p, size_t size, size_t *n)
{
	ssize_t r = recv(*(int *)arg, p, size, MSG_DONTWAIT);
	*n = r > 0 ? (size_t)r : 0;
	return r > 0 ? 0 : r < 0 ? -errno : -EPIPE;
}

static int carrier_write(void *arg, const void *p, size_t size, size_t *n)
{
	ssize_t r = send(*(int *)arg, p, size, MSG_DONTWAIT | MSG_NOSIGNAL);
	*n = r > 0 ? (size_t)r : 0;
	return r < 0 ? -errno : 0;
}

static void *client(void *arg)
{
	return (void *)(intptr_t)mux_run(arg);
}

static int connect_to(const struct sockaddr_un *at)
{
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (const struct sockaddr *)at, sizeof *at), 0);
	return fd;
}

/* The carrier's next frame names a new connection. */
static void assert_opened(int carrier)
{
	unsigned char head[MUX_HEADER];
	assert_int_equal(recv(carrier, head, sizeof head, MSG_WAITALL), (ssize_t)sizeof head);
	assert_int_equal(head[14], MUX_OPEN);
}

static void no_memory_for_one_connection_breaks_that_one_alone(void **state)
{
	char dir[] = "/tmp/mux.XXXXXX", byte;
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	int carrier[2];
	void *rc;
	pthread_t thread;
	(void)state;
	assert_non_null(mkdtemp(dir));
	snprintf(at.sun_path, sizeof at.sun_path, "%s/s", dir);
	struct mux_spec spec = {
		.carrier = {carrier_fd, carrier_events, carrier_read, carrier_write, &carrier[0]},
		.listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0),
		.stop_fd = eventfd(0, EFD_CLOEXEC)};
	assert_int_equal(bind(spec.listener, (struct sockaddr *)&at, sizeof at), 0);
	assert_int_equal(listen(spec.listener, 8), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, carrier), 0);
	struct timeval limit = {.tv_sec = 20};
	assert_int_equal(setsockopt(carrier[1], SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit), 0);
	assert_int_equal(pthread_create(&thread, NULL, client, &spec), 0);
	int first = connect_to(&at);
	assert_opened(carrier[1]);
	atomic_store(&no_memory, true);
	int second = connect_to(&at);
	assert_int_equal(recv(second, &byte, 1, 0), 0);
	int third = connect_to(&at);
	assert_opened(carrier[1]);
	assert_int_equal(recv(first, &byte, 1, MSG_DONTWAIT), -1);
	assert_int_equal(errno, EAGAIN);
	assert_int_equal(write(spec.stop_fd, &(uint64_t){1}, 8), 8);
	assert_int_equal(pthread_join(thread, &rc), 0);
	assert_null(rc);
	int all[] = {first, second, third, carrier[0], carrier[1], spec.listener, spec.stop_fd};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++)
		close(all[i]);
	unlink(at.sun_path);
	assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(no_memory_for_one_connection_breaks_that_one_alone),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
