/* links: ctl/words.c contrib/common/buf.c sandboxfs/call.c sandboxfs/process.c */
/*
 * Documents of processes/new: a command or one JSON object.
 */
#include "../../ctl/process_new.c"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct call c;
	struct request r = {0};
	struct json_object *o = NULL;
	char *text = fuzz_text(data, size);
	call_init(&c, 0);
	if (ctl_is_json(text, size) && ctl_parse_json(&c, text, size, &o) == 0 &&
		request_read(&c, o, &r) == 0) {
		MUST(r.command);
		MUST(r.timeout_ms >= 0);
		MUST(!r.id || process_id_ok(r.id));
		MUST(!r.env || json_object_is_type(r.env, json_type_object));
	}
	(void)is_blank_text(text, size);
	json_object_put(r.env);
	json_object_put(o);
	call_destroy(&c);
	free(text);
	return 0;
}

/* processes.c has it, with all that processes are */
int process_bad_id(struct call *c, const char *id)
{
	return call_fault(c, EINVAL, NULL, "%s", id);
}
