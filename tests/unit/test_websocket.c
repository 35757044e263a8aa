/* links: contrib/common/buf.c sandboxfs/call.c sandboxfs/websocket_handshake.c */
/* The opening handshake of WebSockets: what is asked, what may be asked, which answers count. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "cleanup.h"
#include "websocket_handshake.h"

#define KEY "dGhlIHNhbXBsZSBub25jZQ=="
#define ACCEPT "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="

static void the_accept_is_that_of_the_standard(void **state)
{
	(void)state;
	AUTO_FREE char *accept = websocket_accept(KEY);
	assert_string_equal(accept, ACCEPT);
}

static void keys_are_24_letters_and_differ(void **state)
{
	char a[WEBSOCKET_KEY + 1], b[WEBSOCKET_KEY + 1];

	(void)state;
	assert_int_equal(websocket_make_key(a), 0);
	assert_int_equal(websocket_make_key(b), 0);
	assert_int_equal(strlen(a), WEBSOCKET_KEY);
	assert_string_not_equal(a, b);
}

static void a_request_says_what_was_asked(void **state)
{
	static const char *const headers[] = {"X-One:1", "Y: two words", NULL};
	struct websocket_spec spec = {
		.port = 80, .path = "/a?b=c", .protocol = "x,y", .headers = headers};
	AUTO_BUF out = BUF_INIT;

	(void)state;
	assert_int_equal(websocket_request(&out, &spec, "localhost:80", "secret", KEY), 0);
	assert_string_equal(out.data,
		"GET /a?b=c HTTP/1.1\r\nHost: localhost:80\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " KEY "\r\nSec-WebSocket-Protocol: x,y\r\n"
		"Authorization: Bearer secret\r\nX-One: 1\r\nY: two words\r\n\r\n");
}

static void a_host_of_ones_own_replaces_ours(void **state)
{
	static const char *const headers[] = {"host:example.org", NULL};
	struct websocket_spec spec = {.port = 80, .path = "/", .headers = headers};
	AUTO_BUF out = BUF_INIT;

	(void)state;
	assert_int_equal(websocket_request(&out, &spec, "localhost:80", NULL, KEY), 0);
	assert_null(strstr(out.data, "localhost"));
	assert_non_null(strstr(out.data, "\r\nhost: example.org\r\n"));
}

static int check(const char *path, const char *protocol, const char *header)
{
	const char *headers[] = {header, NULL};
	struct websocket_spec spec = {
		.port = 80, .path = path, .protocol = protocol, .headers = headers};
	struct call c;

	call_init(&c, 0);
	int err = websocket_check(&c, &spec);
	assert_int_equal(err ? c.fault.err : 0, -err);
	call_destroy(&c);
	return err;
}

static void what_would_break_the_request_is_refused(void **state)
{
	static const char *const paths[] = {"", "a", "/a b", "/a\r\nX: 1", "/\x7f", "/\xc3\xa4", "/#x"};
	static const char *const headers[] = {"", "X", ":1", "X Y:1", "X:1\r\nZ:2", "X:\x01",
		"Connection:close", "upgrade:h2c", "Sec-WebSocket-Key:1", "Content-Length:5"};
	static const char *const protocols[] = {"", "a b", "a,,b", "a/b", ",a", "a,"};

	(void)state;
	assert_int_equal(check("/a%20b?x=1&y=2", "chat,v2.x", "X-Y:a\tb"), 0);
	assert_int_equal(check("/", NULL, NULL), 0);
	for (size_t i = 0; i < sizeof(paths) / sizeof(*paths); i++)
		assert_int_equal(check(paths[i], NULL, NULL), -EINVAL);
	for (size_t i = 0; i < sizeof(headers) / sizeof(*headers); i++)
		assert_int_equal(check("/", NULL, headers[i]), -EINVAL);
	for (size_t i = 0; i < sizeof(protocols) / sizeof(*protocols); i++)
		assert_int_equal(check("/", protocols[i], NULL), -EINVAL);
}

static void a_head_is_whole_at_its_empty_line(void **state)
{
	static const char head[] = "HTTP/1.1 101 x\r\nA: b\r\n\r\nframes";
	size_t whole = strlen(head) - strlen("frames");

	(void)state;
	for (size_t n = 0; n < whole; n++)
		assert_int_equal(websocket_head_size(head, n), 0);
	for (size_t n = whole; n <= strlen(head); n++)
		assert_int_equal(websocket_head_size(head, n), whole);
	assert_int_equal(websocket_head_status(head, whole), 101);
	assert_int_equal(websocket_head_size("SSH-2.0", 7), -EPROTO);
	assert_int_equal(websocket_head_size("H", 1), 0);
	AUTO_FREE char *endless = malloc(WEBSOCKET_HEAD_MAX);
	memset(endless, 'x', WEBSOCKET_HEAD_MAX);
	memcpy(endless, "HTTP/1.1 101 ", 13);
	assert_int_equal(websocket_head_size(endless, WEBSOCKET_HEAD_MAX - 1), 0);
	assert_int_equal(websocket_head_size(endless, WEBSOCKET_HEAD_MAX), -EPROTO);
}

static int answer(const char *head, const char *wanted, char **protocol)
{
	char *why;
	int err = websocket_answer(head, strlen(head), KEY, wanted, protocol, &why);

	assert_true(err == 0 || why);
	free(why);
	return err;
}

static int refused(const char *head, const char *wanted)
{
	char *protocol;
	int err = answer(head, wanted, &protocol);

	assert_null(protocol);
	return err;
}

#define OK "HTTP/1.1 101 Switching Protocols\r\n"
#define UP "Upgrade: websocket\r\nConnection: Upgrade\r\n"
#define KEYED "Sec-WebSocket-Accept: " ACCEPT "\r\n"

static void good_answers_are_accepted(void **state)
{
	char *protocol;

	(void)state;
	assert_int_equal(answer(OK UP KEYED "\r\n", NULL, &protocol), 0);
	assert_null(protocol);
	assert_int_equal(
		answer(OK "UPGRADE:WebSocket\r\nconnection: keep-alive , upgrade\r\n"
				  "sec-websocket-accept:\t " ACCEPT " \r\nSec-WebSocket-Protocol: y\r\n\r\n",
			"x,y", &protocol),
		0);
	assert_string_equal(protocol, "y");
	free(protocol);
}

static void others_are_not(void **state)
{
	(void)state;
	assert_int_equal(refused(OK UP "\r\n", NULL), -EPROTO);
	assert_int_equal(refused(OK KEYED "\r\n", NULL), -EPROTO);
	assert_int_equal(refused(OK "Upgrade: websocket\r\n" KEYED "\r\n", NULL), -EPROTO);
	assert_int_equal(
		refused(OK UP "Sec-WebSocket-Accept: S3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n", NULL), -EPROTO);
	assert_int_equal(
		refused(OK UP KEYED "Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n", NULL), -EPROTO);
	assert_int_equal(refused(OK UP KEYED "Sec-WebSocket-Protocol: z\r\n\r\n", "x,y"), -EPROTO);
	assert_int_equal(refused(OK UP KEYED "Sec-WebSocket-Protocol: x\r\n\r\n", NULL), -EPROTO);
	assert_int_equal(refused(OK UP KEYED "no header\r\n\r\n", NULL), -EPROTO);
	assert_int_equal(refused("HTTP/1.1 200 OK\r\n" UP KEYED "\r\n", NULL), -EPROTO);
	assert_int_equal(refused("HTTP/1.1 abc\r\n\r\n", NULL), -EPROTO);
	assert_int_equal(refused("HTTP/1.1 401 no\r\n\r\n", NULL), -EACCES);
	assert_int_equal(refused("HTTP/1.1 403 no\r\n\r\n", NULL), -EACCES);
	assert_int_equal(refused("HTTP/1.1 404 no\r\n\r\n", NULL), -ENOENT);
	assert_int_equal(refused("HTTP/1.1 503 later\r\n\r\n", NULL), -EBUSY);
}

/* What a service says is shown to a person: without its control characters. */
static void a_refusal_is_told_in_its_own_words(void **state)
{
	static const char head[] = "HTTP/1.1 418 a \x1b[31mteapot\r\n\r\n";
	char *protocol, *why;

	(void)state;
	assert_int_equal(websocket_answer(head, strlen(head), KEY, NULL, &protocol, &why), -EPROTO);
	assert_string_equal(why, "the service answered 418 a ?[31mteapot");
	free(why);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_accept_is_that_of_the_standard),
		cmocka_unit_test(keys_are_24_letters_and_differ),
		cmocka_unit_test(a_request_says_what_was_asked),
		cmocka_unit_test(a_host_of_ones_own_replaces_ours),
		cmocka_unit_test(what_would_break_the_request_is_refused),
		cmocka_unit_test(a_head_is_whole_at_its_empty_line),
		cmocka_unit_test(good_answers_are_accepted),
		cmocka_unit_test(others_are_not),
		cmocka_unit_test(a_refusal_is_told_in_its_own_words),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
