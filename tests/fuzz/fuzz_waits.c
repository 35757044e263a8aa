/* links: ctl/words.c ctl/log_match.c contrib/common/buf.c sandboxfs/call.c */
/*
 * wait-port and wait-log: their lines, the events of the server (SSE), a pattern and the log it is matched with. The input is up to
 * four parts with a NUL between them.
 */
#include "../../ctl/process_waits.c"
#include "fuzz.h"

static void try_port(struct call *c, const char *line, size_t n, struct port_wait *wait)
{
	AUTO_FREE char **argv = NULL;
	int argc;
	*wait = (struct port_wait){.port = 80, .path = "/"};
	if (ctl_split(c, line, n, &argc, &argv))
		return;
	if (port_parse(c, argc, argv, wait) == 0) {
		MUST(wait->port >= 1 && wait->port <= 65535);
		MUST(wait->status_min >= 100 && wait->status_max <= 599);
		MUST(wait->status_min <= wait->status_max);
		MUST(wait->path[0] == '/');
	}
	/* its words go with argv */
	wait->path = "/";
}

static void try_log(struct call *c, const char *line, size_t n, const char *log, size_t log_n)
{
	struct log_wait w = {.call = c};
	struct log_match *m = NULL;
	AUTO_BUF answer = BUF_INIT;
	if (log_parse(c, &line, &n, &w) || log_match_new(c, line, n, &m))
		return;
	int got = 0;
	for (size_t at = 0; got == 0 && at < log_n;) {
		size_t part = 1 + (unsigned char)log[at] % 7;
		part = part < log_n - at ? part : log_n - at;
		got = log_match_feed(m, c, 1 + (at & 1), log + at, part, &answer);
		at += part;
	}
	if (got == 0)
		got = log_match_end(m, c, &answer);
	if (got == 1)
		MUST(answer.size > 0 && answer.data[answer.size - 1] == '\n');
	log_match_free(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text[4];
	size_t n[4];
	struct call c;
	struct port_wait wait;
	struct buf events = BUF_INIT, answer = BUF_INIT;
	for (int i = 0; i < 4; i++) {
		const uint8_t *end = i < 3 && size ? memchr(data, 0, size) : NULL;
		n[i] = end ? (size_t)(end - data) : size;
		text[i] = fuzz_text(data, n[i]);
		size_t taken = n[i] + (end ? 1 : 0);
		data += taken;
		size -= taken;
	}
	call_init(&c, 0);
	try_port(&c, text[0], n[0], &wait);
	buf_add(&events, text[1], n[1]);
	while (watch_lines(&c, &wait, &events, &answer) && events.size)
		buf_clear(&answer);
	try_log(&c, text[2], n[2], text[3], n[3]);
	call_destroy(&c);
	buf_release(&events);
	buf_release(&answer);
	for (int i = 0; i < 4; i++)
		free(text[i]);
	return 0;
}
