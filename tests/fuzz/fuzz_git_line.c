/* links: ctl/git_line.c ctl/words.c contrib/common/buf.c sandboxfs/call.c */
/*
 * Lines of git, the script made of one, and what git says. A password is in no script and no message. The input is up
 * to two parts with a NUL between them.
 */
#include <errno.h>

#include "fuzz.h"
#include "git_line.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const uint8_t *end = size ? memchr(data, 0, size) : NULL;
	size_t n = end ? (size_t)(end - data) : size;
	char *line = fuzz_exact(data, n);
	char *said = fuzz_text(end ? end + 1 : data, end ? size - n - 1 : 0);
	struct git_request q = {0};
	struct buf script = BUF_INIT, input = BUF_INIT, why = BUF_INIT, stage = BUF_INIT;
	struct call c;
	call_init(&c, 0);
	if (git_request_parse(&c, line, n, &q) == 0) {
		MUST(q.url && q.dir && q.dir[0] == '/');
		MUST(q.depth >= 0);
		MUST(git_request_stage(&q, "id", &stage) == 0);
		MUST(git_request_script(&q, stage.data, &script, &input) == 0);
	}
	git_request_release(&q);
	MUST(git_errno(said, 1, &why) > 0);
	buf_release(&script);
	buf_release(&input);
	buf_release(&why);
	buf_release(&stage);
	call_destroy(&c);
	free(said);
	free(line);
	return 0;
}
