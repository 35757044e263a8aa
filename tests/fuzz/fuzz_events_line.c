/* links: ctl/events_line.c ctl/words.c contrib/common/buf.c sandboxfs/call.c */
/*
 * First lines of events, and the requests made of them: a directory is below the workspace.
 */
#include <errno.h>
#include <json-c/json.h>

#include "events_line.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct call c;
	struct events_request q = {0};
	char *line = fuzz_exact(data, size);
	call_init(&c, 0);
	int err = events_request_parse(&c, line, size, &q);
	if (err == 0) {
		MUST(q.dir && *q.dir != '/');
		MUST(strcmp(q.dir, "..") != 0 && strncmp(q.dir, "../", 3) != 0);
		MUST(json_object_is_type(q.body, json_type_object));
		json_object_put(events_request_check(&q));
	} else {
		MUST(err == -ENOMEM || (c.fault.err == -err && c.fault.message));
	}
	events_request_release(&q);
	call_destroy(&c);
	free(line);
	return 0;
}
