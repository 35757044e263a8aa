/* links: ctl/words.c ctl/log_event.c contrib/common/buf.c sandboxfs/call.c */
/*
 * Requests of exec.json, as a document and as a line. What is taken must be a command that can be sent.
 */
#include "../../ctl/exec_json.c"
#include "fuzz.h"

static void request_free(struct conversation_request *q)
{
	buf_release(&q->command);
	buf_release(&q->input);
	free(q->cwd);
	for (char **e = q->env; e && *e; e++)
		free(*e);
	free(q->env);
	free(q->session);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct call c;
	struct conversation_request q = {.command = BUF_INIT, .input = BUF_INIT};
	char *text = fuzz_text(data, size);
	call_init(&c, 0);
	int err = parse(&c, text, size, size & 1, &q);
	if (err == 0) {
		MUST(q.timeout_ms >= 0);
		MUST(!q.cwd || q.cwd[0] == '/');
		for (char **e = q.env; e && *e; e++)
			MUST(strchr(*e, '=') > *e);
	} else if (err < 0 && err != -ENOMEM) {
		MUST(c.fault.err == -err && c.fault.message);
	}
	request_free(&q);
	call_destroy(&c);
	free(text);
	return 0;
}
