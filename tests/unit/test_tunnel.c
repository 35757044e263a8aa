/* links: contrib/common/buf.c sandboxfs/call.c sandboxfs/log.c sandboxfs/tunnel.c */
/* When a tunnel's wire is made anew. The wire, the sandbox and the directory of sockets are functions here. */
#include <errno.h>
#include <poll.h>
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
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "mux.h"
#include "tunnel.h"
#include "wire.h"

enum { LIMIT_MS = 20000 };

struct wire {
	char unused;
};

static char dir[64], path[96];
static atomic_uint tries; /* to make a wire */
static atomic_bool fails;

int wire_open(struct call *c, const struct http_target *target, const char *route, int64_t deadline,
	struct wire **out)
{
	(void)target, (void)route, (void)deadline;
	atomic_fetch_add(&tries, 1);
	if (atomic_load(&fails))
		return call_fault(c, EACCES, NULL, "no wire");
	*out = calloc(1, sizeof **out);
	return *out ? 0 : -ENOMEM;
}

int wire_await(struct wire *w, struct call *c, const char *mark, const char *bad, size_t most,
	int64_t deadline)
{
	(void)w, (void)c, (void)mark, (void)bad, (void)most, (void)deadline;
	return 0;
}

struct mux_carrier wire_carrier(struct wire *w)
{
	(void)w;
	return (struct mux_carrier){0};
}

void wire_close(struct wire *w)
{
	free(w);
}

/* A wire lasts until it is to fail. */
int mux_run(const struct mux_spec *spec)
{
	struct pollfd stop = {spec->stop_fd, POLLIN, 0};
	while (!atomic_load(&fails))
		if (poll(&stop, 1, 1) > 0)
			return 0;
	return -EPIPE;
}

int carry_in(const struct carrier *k, struct call *c, int64_t deadline, char **attach)
{
	(void)k, (void)c, (void)deadline;
	*attach = strdup("/attach");
	return *attach ? 0 : -ENOMEM;
}

int run_dir_listen(struct run_dir *r, struct call *c, char **out, int *fd)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	(void)r, (void)c;
	snprintf(at.sun_path, sizeof at.sun_path, "%s", path);
	*fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (*fd < 0 || bind(*fd, (struct sockaddr *)&at, sizeof at) || listen(*fd, 16))
		return -errno;
	*out = strdup(path);
	return *out ? 0 : -ENOMEM;
}

static char *terminal(void *arg, const char *session, const char *program)
{
	(void)arg, (void)session, (void)program;
	return strdup("/terminal");
}

static void leave(void *arg, struct call *c, const char *session)
{
	(void)arg, (void)c, (void)session;
}

static struct tunnel *open_tunnel(void)
{
	static const struct http_target target = {.base = "http://localhost"};
	struct tunnel_way way = {
		.target = &target, .terminal = terminal, .leave = leave, .start_ms = 10000};
	struct run_dir run = {0};
	struct tunnel *t = NULL;
	struct call c;
	strcpy(dir, "/tmp/tunnel.XXXXXX");
	assert_non_null(mkdtemp(dir));
	snprintf(path, sizeof path, "%s/s", dir);
	atomic_store(&tries, 0);
	atomic_store(&fails, false);
	call_init(&c, 0);
	assert_int_equal(tunnel_open(&c, &way, &run, &t), 0);
	call_destroy(&c);
	return t;
}

static void close_tunnel(struct tunnel *t)
{
	tunnel_close(t, call_now_ms() + 1000);
	assert_int_equal(rmdir(dir), 0);
}

static int connect_there(void)
{
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_true(fd >= 0);
	snprintf(at.sun_path, sizeof at.sun_path, "%s", path);
	assert_int_equal(connect(fd, (struct sockaddr *)&at, sizeof at), 0);
	return fd;
}

static void who_waited_for_a_wire_that_cannot_be_made_does_not_ask_for_another(void **state)
{
	(void)state;
	struct tunnel *t = open_tunnel();
	assert_int_equal(tunnel_wires(t) % 2, 1);
	atomic_store(&fails, true);
	while (tunnel_wires(t) % 2)
		usleep(1000);
	unsigned before = atomic_load(&tries);
	struct pollfd p = {connect_there(), POLLIN, 0};
	assert_int_equal(poll(&p, 1, LIMIT_MS), 1);
	char byte;
	assert_int_equal(recv(p.fd, &byte, 1, 0), 0);
	assert_int_equal(atomic_load(&tries), before + 1);
	close(p.fd);
	/* Another has it tried again; one that comes too early is broken off with the first. */
	atomic_store(&fails, false);
	for (int64_t until = call_now_ms() + LIMIT_MS; tunnel_wires(t) % 2 == 0;) {
		assert_true(call_now_ms() < until);
		p.fd = connect_there();
		(void)poll(&p, 1, 50);
		close(p.fd);
	}
	assert_int_equal(atomic_load(&tries), before + 2);
	close_tunnel(t);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(who_waited_for_a_wire_that_cannot_be_made_does_not_ask_for_another),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
