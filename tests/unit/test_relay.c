/* links: contrib/common/buf.c sandboxfs/http.c sandboxfs/http_loop.c sandboxfs/call.c sandboxfs/log.c sandboxfs/relay.c sandboxfs/relay_connection.c sandboxfs/relay_socket.c */
#include "run_rig.h"

#include <arpa/inet.h>
#include <netinet/in.h>

#include "relay.h"

/* A server that takes the upgrade (unless refuse) and sends back what it hears, then "END". */
struct echo {
	char dir[32], path[64];
	int listener;
	pthread_t thread;
	const char *head;
	bool refuse;
};

static void *echo_one(void *arg)
{
	struct echo *e = arg;

	for (;;) {
		char bytes[1000];
		AUTO_BUF in = BUF_INIT;
		int fd = accept(e->listener, NULL, NULL);
		ssize_t n;

		if (fd < 0)
			return NULL;
		while (!in.data || !strstr(in.data, "\r\n\r\n")) {
			n = recv(fd, bytes, 1, 0);
			if (n <= 0)
				break;
			buf_add(&in, bytes, (size_t)n);
		}
		assert_non_null(strstr(in.data, "GET /api/sandboxfs/relay/8080 HTTP/1.1\r\n"));
		assert_non_null(strstr(in.data, "Upgrade: sandboxfs-relay\r\n"));
		rig_send(fd, e->head, strlen(e->head));
		while (!e->refuse && (n = recv(fd, bytes, sizeof bytes, 0)) > 0)
			rig_send(fd, bytes, (size_t)n);
		if (!e->refuse)
			rig_send(fd, "END", 3);
		close(fd);
	}
}

static void echo_open(struct echo *e, struct sandbox *sb, const char *head, bool refuse)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};

	memset(e, 0, sizeof *e);
	e->head = head;
	e->refuse = refuse;
	strcpy(e->dir, "/tmp/relay-rig-XXXXXX");
	assert_non_null(mkdtemp(e->dir));
	snprintf(e->path, sizeof e->path, "%s/socket", e->dir);
	strcpy(un.sun_path, e->path);
	e->listener = socket(AF_UNIX, SOCK_STREAM, 0);
	assert_int_equal(bind(e->listener, (struct sockaddr *)&un, sizeof un), 0);
	assert_int_equal(listen(e->listener, 8), 0);
	assert_int_equal(pthread_create(&e->thread, NULL, echo_one, e), 0);
	sandbox_open(sb, e->path);
}

static void echo_close(struct echo *e, struct sandbox *sb)
{
	sandbox_close(sb);
	shutdown(e->listener, SHUT_RDWR);
	pthread_join(e->thread, NULL);
	close(e->listener);
	unlink(e->path);
	rmdir(e->dir);
}

static int dial(uint16_t port)
{
	struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(port)};
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	assert_int_equal(connect(fd, (struct sockaddr *)&in, sizeof in), 0);
	return fd;
}

static const char accepted[] =
	"HTTP/1.1 101 Switching Protocols\r\nUpgrade: sandboxfs-relay\r\n\r\nfirst ";

static void *send_all(void *arg)
{
	int fd = *(int *)arg;
	char *bytes = malloc(1000000);

	memset(bytes, 'x', 1000000);
	rig_send(fd, bytes, 1000000);
	shutdown(fd, SHUT_WR);
	free(bytes);
	return NULL;
}

static void bytes_and_half_closes_pass(void **state)
{
	struct sandbox sb;
	struct echo e;
	struct relay_set *s;
	struct call c;
	uint16_t listens;
	pthread_t t;
	size_t got = 0;
	char bytes[4096], last[3] = "";
	ssize_t n;

	(void)state;
	echo_open(&e, &sb, accepted, false);
	call_init(&c, 0);
	assert_int_equal(relay_set_new(&sb, &s), 0);
	assert_int_equal(relay_open(s, &c, 8080, &listens), 0);
	assert_int_equal(relay_open(s, &c, 8080, &(uint16_t){0}), -EEXIST);
	int fd = dial(listens);
	pthread_create(&t, NULL, send_all, &fd);
	while ((n = recv(fd, bytes, sizeof bytes, 0)) > 0) {
		got += (size_t)n;
		if (n >= 3)
			memcpy(last, bytes + n - 3, 3);
	}
	pthread_join(t, NULL);
	assert_int_equal(got, strlen("first ") + 1000000 + strlen("END"));
	assert_memory_equal(last, "END", 3);
	close(fd);
	relay_set_free(s);
	call_destroy(&c);
	echo_close(&e, &sb);
}

static void a_port_where_nobody_listens_is_a_reset(void **state)
{
	static const char refused[] = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\n\r\n";
	struct sandbox sb;
	struct echo e;
	struct relay_set *s;
	struct call c;
	uint16_t listens;
	char byte;

	(void)state;
	echo_open(&e, &sb, refused, true);
	call_init(&c, 0);
	assert_int_equal(relay_set_new(&sb, &s), 0);
	assert_int_equal(relay_open(s, &c, 8080, &listens), 0);
	int fd = dial(listens);
	assert_int_equal(recv(fd, &byte, 1, 0), -1);
	assert_int_equal(errno, ECONNRESET);
	close(fd);
	relay_set_free(s);
	call_destroy(&c);
	echo_close(&e, &sb);
}

static void an_answer_without_end_is_given_up(void **state)
{
	struct sandbox sb;
	struct echo e;
	struct relay_set *s;
	struct call c;
	uint16_t listens;
	char byte, *head = malloc(20001);

	(void)state;
	memset(head, 'h', 20000);
	head[20000] = 0;
	echo_open(&e, &sb, head, false);
	call_init(&c, 0);
	assert_int_equal(relay_set_new(&sb, &s), 0);
	assert_int_equal(relay_open(s, &c, 8080, &listens), 0);
	int fd = dial(listens);
	assert_int_equal(recv(fd, &byte, 1, 0), -1);
	close(fd);
	relay_set_free(s);
	call_destroy(&c);
	echo_close(&e, &sb);
	free(head);
}

static void closing_ends_the_connections(void **state)
{
	struct sandbox sb;
	struct echo e;
	struct relay_set *s;
	struct call c;
	uint16_t listens, again;
	char bytes[6];

	(void)state;
	echo_open(&e, &sb, accepted, false);
	call_init(&c, 0);
	assert_int_equal(relay_set_new(&sb, &s), 0);
	assert_int_equal(relay_open(s, &c, 8080, &listens), 0);
	int fd = dial(listens);
	assert_int_equal(recv(fd, bytes, 6, MSG_WAITALL), 6);
	relay_close(s, 8080);
	relay_close(s, 8080);
	assert_int_equal(recv(fd, bytes, 1, 0), -1);
	close(fd);
	assert_int_equal(relay_open(s, &c, 8080, &again), 0);
	fd = dial(again);
	assert_int_equal(recv(fd, bytes, 6, MSG_WAITALL), 6);
	relay_set_free(s); /* with a connection open */
	close(fd);
	call_destroy(&c);
	echo_close(&e, &sb);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(bytes_and_half_closes_pass),
		cmocka_unit_test(a_port_where_nobody_listens_is_a_reset),
		cmocka_unit_test(an_answer_without_end_is_given_up),
		cmocka_unit_test(closing_ends_the_connections),
	};

	alarm(60); /* a wait that never ends is a failure */
	return cmocka_run_group_tests(tests, NULL, NULL);
}
