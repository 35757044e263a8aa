/* links: contrib/sandboxd/ws_frames.c contrib/sandboxd/text.c contrib/common/buf.c */
/* Frames of WebSockets from a client, in pieces: what they come to may not depend on how they were cut. */
#include "fuzz.h"
#include "ws_frames.h"

enum { MOST = 1000 };

struct seen {
	struct buf all;
};

static void on_message(void *arg, bool binary, const void *p, size_t n)
{
	struct seen *s = arg;
	MUST(n <= MOST);
	buf_u8(&s->all, binary);
	buf_bytes(&s->all, p, n);
}

static struct ws_frames take(struct seen *s, const uint8_t *data, size_t size, size_t piece)
{
	struct ws_frames f;
	ws_frames_init(&f, on_message, s, MOST);
	for (size_t at = 0; at < size; at += piece) {
		size_t n = size - at < piece ? size - at : piece;
		char *p = fuzz_exact(data + at, n);
		MUST(ws_frames_take(&f, p, n) == 0);
		free(p);
	}
	return f;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct seen whole = {BUF_INIT}, cut = {BUF_INIT};
	struct ws_frames a = take(&whole, data, size, size + 1);
	struct ws_frames b = take(&cut, data, size, 1 + size % 7);
	size_t n, m;
	const void *p = ws_frames_out(&a, &n);
	const void *q = ws_frames_out(&b, &m);
	MUST(a.over == b.over && n == m && (!n || memcmp(p, q, n) == 0));
	MUST(whole.all.size == cut.all.size);
	MUST(!cut.all.size || memcmp(whole.all.data, cut.all.data, cut.all.size) == 0);
	ws_frames_release(&a);
	ws_frames_release(&b);
	buf_release(&whole.all);
	buf_release(&cut.all);
	return 0;
}
