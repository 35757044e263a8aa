/* links: sandboxfs/websocket_handshake.c contrib/common/buf.c sandboxfs/call.c */
/*
 * The WebSocket handshake: what a service answers, and what is asked of it. The input is up to three parts with a NUL
 * between them: an answer, a path, a header.
 */
#include <errno.h>

#include "fuzz.h"
#include "websocket_handshake.h"

static void try_answer(const char *p, size_t n)
{
	char *protocol = NULL, *why = NULL;
	char *head = fuzz_exact(p, n);
	ssize_t size = websocket_head_size(head, n);
	MUST(size <= (ssize_t)n);
	if (size > 0) {
		(void)websocket_head_status(head, (size_t)size);
		int err = websocket_answer(
			head, (size_t)size, "dGhlIHNhbXBsZSBub25jZQ==", "chat, superchat", &protocol, &why);
		MUST(err <= 0);
		if (err == 0)
			MUST(!protocol || strcmp(protocol, "chat") == 0 || strcmp(protocol, "superchat") == 0);
		free(protocol);
		free(why);
	}
	free(head);
}

/* What may be asked must not hold more than one request. */
static void try_request(const char *path, const char *header)
{
	struct call c;
	const char *headers[] = {header, NULL};
	struct websocket_spec spec = {.port = 80, .path = path, .headers = headers};
	struct buf out = BUF_INIT;
	call_init(&c, 0);
	if (websocket_check(&c, &spec) == 0) {
		MUST(websocket_request(&out, &spec, "localhost", NULL, "dGhlIHNhbXBsZSBub25jZQ==") == 0);
		buf_char(&out, 0);
		char *end = strstr(out.data, "\r\n\r\n");
		MUST(end && end[4] == 0);
	}
	call_destroy(&c);
	buf_release(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *end = size ? memchr(data, 0, size) : NULL;
	size_t n = end ? (size_t)(end - data) : size;
	try_answer((const char *)data, n);
	if (!end)
		return 0;
	char *rest = fuzz_text(end + 1, size - n - 1);
	size_t path = strlen(rest);
	try_request(rest, path < size - n - 1 ? rest + path + 1 : "A: b");
	free(rest);
	return 0;
}
