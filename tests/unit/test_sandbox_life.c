/* links: contrib/common/buf.c contrib/common/fileop.c sandboxfs/api_error.c sandboxfs/call.c sandboxfs/http.c sandboxfs/http_loop.c sandboxfs/log.c sandboxfs/sandbox.c sandboxfs/sandbox_idle.c sandboxfs/sandbox_link.c sandboxfs/server.c sandboxfs/server_end.c sandboxfs/waitq.c */
/* Sandboxes that come, go and fall silent, with a driver made here: its servers are sockets that answer, break off or say nothing. */
#include <errno.h>
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
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

#include "cleanup.h"
#include "sandbox_impl.h"

enum {
	LIMIT_MS = 9000,
	LONG_MS = 3600000
}; /* two silent pings, one after the other, take longer */

/* --- a server in a sandbox --- */

enum manner { ANSWERS, BREAKS, SILENT };

struct guest {
	_Atomic enum manner manner;
	atomic_uint ways;
	atomic_uint answered;
	int fd;
	char path[96];
	pthread_t thread;
};

static char dir[64];
static atomic_uint starts;
static atomic_bool stop_waits, stop_entered; /* of the sandbox "a" */
static struct guest *newest;

static void answer(int fd, struct guest *g)
{
	static const char ok[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
	char text[4096];
	size_t n = 0;
	while (n < sizeof text - 1) {
		ssize_t r = recv(fd, text + n, sizeof text - 1 - n, 0);
		if (r <= 0)
			return;
		n += (size_t)r;
		text[n] = 0;
		if (strstr(text, "\r\n\r\n"))
			break;
	}
	atomic_fetch_add(&g->answered, 1);
	(void)!send(fd, ok, sizeof ok - 1, MSG_NOSIGNAL);
}

static void *guest_main(void *arg)
{
	struct guest *g = arg;
	int held[256], fd;
	unsigned holds = 0;
	while ((fd = accept4(g->fd, NULL, NULL, SOCK_CLOEXEC)) >= 0) {
		if (atomic_load(&g->manner) == SILENT && holds < sizeof held / sizeof *held) {
			held[holds++] = fd;
			continue;
		}
		if (atomic_load(&g->manner) == ANSWERS)
			answer(fd, g);
		close(fd);
	}
	while (holds)
		close(held[--holds]);
	return NULL;
}

/* --- the driver --- */

static int driver_open(const struct options *o, struct call *c, void **state)
{
	(void)o, (void)c, (void)state;
	return 0;
}

static void driver_close(void *state)
{
	(void)state;
}

static int driver_create(void *state, struct call *c, const char *name)
{
	(void)state, (void)c, (void)name;
	return 0;
}

static unsigned driver_ways(void *data)
{
	struct guest *g = data;
	return atomic_load(&g->ways);
}

static int driver_start(void *state, struct call *c, const char *name, void (*died)(void *arg),
	void *arg, struct driver_instance *out)
{
	struct guest *g = calloc(1, sizeof *g);
	struct sockaddr_un at = {.sun_family = AF_UNIX};
	(void)state, (void)c, (void)died;
	assert_non_null(g);
	sandbox_sleep_set(arg, NULL, LONG_MS);
	snprintf(g->path, sizeof g->path, "%s/%s.%u", dir, name, atomic_fetch_add(&starts, 1));
	snprintf(at.sun_path, sizeof at.sun_path, "%s", g->path);
	g->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	assert_int_equal(bind(g->fd, (struct sockaddr *)&at, sizeof at), 0);
	assert_int_equal(listen(g->fd, 64), 0);
	assert_int_equal(pthread_create(&g->thread, NULL, guest_main, g), 0);
	newest = g;
	*out = (struct driver_instance){
		.target = {.base = strdup("http://localhost"), .unix_path = strdup(g->path)},
		.data = g,
		.ways = driver_ways};
	return 0;
}

static void driver_stop(void *state, int64_t by_ms, const char *name, struct driver_instance *inst)
{
	struct guest *g = inst->data;
	(void)state, (void)by_ms;
	while (strcmp(name, "a") == 0 && atomic_load(&stop_waits)) {
		atomic_store(&stop_entered, true);
		usleep(1000);
	}
	unlink(g->path);
	shutdown(g->fd, SHUT_RDWR);
	pthread_join(g->thread, NULL);
	close(g->fd);
	free(g);
	free(inst->target.base);
	free(inst->target.unix_path);
	*inst = (struct driver_instance){0};
}

const struct driver_ops local_driver = {.kind = "test",
	.id_names = "^[a-z]+$",
	.many = true,
	.starts = true,
	.sleeps = true,
	.open = driver_open,
	.close = driver_close,
	.create = driver_create,
	.start = driver_start,
	.stop = driver_stop};
const struct driver_ops container_driver, bridge_driver;

bool bridge_is_address(const char *address)
{
	(void)address;
	return false;
}

void front_counts(struct front *f, uint64_t *total, uint64_t *active, uint64_t *threads)
{
	(void)f, (void)total, (void)active, (void)threads;
}

/* --- the rig --- */

struct rig {
	struct options options;
	struct http *http;
	struct server *server;
	struct call call;
};

static void rig_open(struct rig *r)
{
	*r = (struct rig){.options = {.server = "local:", .timeout_ms = 20000}};
	strcpy(dir, "/tmp/life.XXXXXX");
	assert_non_null(mkdtemp(dir));
	call_init(&r->call, 0);
	assert_int_equal(http_new(&r->http), 0);
	assert_int_equal(server_new(&r->options, r->http, &r->call, &r->server), 0);
}

static void rig_close(struct rig *r)
{
	server_free(r->server);
	http_free(r->http);
	call_destroy(&r->call);
	assert_int_equal(rmdir(dir), 0);
}

/* Runs, and is let go of by nobody. *guest: its server, for as long as it is not stopped. */
static struct sandbox *make(struct rig *r, const char *name, struct guest **guest)
{
	struct sandbox *sb;
	assert_int_equal(server_create(r->server, &r->call, name, &sb), 0);
	assert_int_equal(sandbox_start(sb, &r->call), 0);
	*guest = newest;
	return sb;
}

static enum sandbox_state state_of(struct sandbox *sb)
{
	AUTO_UNLOCK(&sb->lock);
	return sb->state;
}

static void fall_silent(struct sandbox *sb)
{
	AUTO_UNLOCK(&sb->lock);
	sandbox_set_state(sb, SANDBOX_UNREACHABLE, "a test");
}

/* False: not by then. */
static bool becomes(struct sandbox *sb, enum sandbox_state state, int64_t limit_ms)
{
	int64_t until = call_now_ms() + limit_ms;
	while (state_of(sb) != state && call_now_ms() < until)
		usleep(1000);
	return state_of(sb) == state;
}

static void silent_ones_hold_nobody_up(void **state)
{
	static const char *const names[] = {"b", "c", "d", "e"};
	enum { COUNT = sizeof names / sizeof *names };
	struct sandbox *all[COUNT], *back;
	struct guest *guest;
	struct rig r;
	(void)state;
	rig_open(&r);
	for (size_t i = 0; i < COUNT; i++) {
		all[i] = make(&r, names[i], &guest);
		atomic_store(&guest->manner, SILENT);
	}
	back = make(&r, "z", &guest);
	for (size_t i = 0; i < COUNT; i++)
		fall_silent(all[i]);
	fall_silent(back);
	assert_true(becomes(back, SANDBOX_RUNNING, LIMIT_MS));
	for (size_t i = 0; i < COUNT; i++) {
		assert_int_equal(state_of(all[i]), SANDBOX_UNREACHABLE);
		sandbox_put(all[i]);
	}
	sandbox_put(back);
	rig_close(&r);
}

static void one_that_is_slow_to_let_go_of_holds_nobody_up(void **state)
{
	struct guest *guest;
	struct rig r;
	(void)state;
	rig_open(&r);
	struct sandbox *slow = make(&r, "a", &guest), *back = make(&r, "z", &guest);
	atomic_store(&stop_waits, true);
	sandbox_sleep_set(slow, NULL, 1);
	while (!atomic_load(&stop_entered))
		usleep(1000);
	fall_silent(back);
	bool came = becomes(back, SANDBOX_RUNNING, LIMIT_MS);
	atomic_store(&stop_waits, false);
	assert_true(came);
	assert_true(becomes(slow, SANDBOX_UNKNOWN, LIMIT_MS));
	sandbox_put(slow);
	sandbox_put(back);
	rig_close(&r);
}

struct use {
	struct sandbox *sb;
	struct call call;
	int err;
};

static void *use_it(void *arg)
{
	struct use *u = arg;
	u->err = sandbox_api(u->sb, &u->call, "GET", "/api/ping", NULL, NULL);
	return NULL;
}

/* Its way broke; while somebody asks who answers now it is let go of. */
static void what_is_let_go_of_while_it_is_asked_who_it_is_starts_again(void **state)
{
	struct guest *guest;
	struct use u = {.err = 1};
	pthread_t thread;
	struct rig r;
	(void)state;
	rig_open(&r);
	u.sb = make(&r, "b", &guest);
	unsigned before = atomic_load(&starts);
	atomic_store(&guest->manner, BREAKS);
	atomic_store(&guest->ways, 2);
	call_init(&u.call, 0);
	assert_int_equal(pthread_create(&thread, NULL, use_it, &u), 0);
	sandbox_sleep_set(u.sb, NULL, 1);
	assert_int_equal(pthread_join(thread, NULL), 0);
	assert_int_equal(u.err, 0);
	assert_int_equal(atomic_load(&starts), before + 1);
	call_destroy(&u.call);
	sandbox_put(u.sb);
	rig_close(&r);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(silent_ones_hold_nobody_up),
		cmocka_unit_test(one_that_is_slow_to_let_go_of_holds_nobody_up),
		cmocka_unit_test(what_is_let_go_of_while_it_is_asked_who_it_is_starts_again),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
