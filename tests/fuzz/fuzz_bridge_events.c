/* links: sandboxfs/bridge_events.c sandboxfs/shown.c contrib/common/buf.c */
/* The events of a bridge's exec: whatever comes, nothing that steers a terminal is in the sentence. */
#include "bridge_events.h"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct buf out = BUF_INIT;
	struct bridge_answer a = {.out = &out};
	char *text = fuzz_text(data, size);
	MUST(bridge_events_take(&a, text) <= 0);
	for (const unsigned char *p = (const unsigned char *)a.error; p && *p; p++)
		MUST(*p >= ' ' && *p != 0x7f);
	MUST(out.size <= size);
	free(a.error);
	free(text);
	buf_release(&out);
	return 0;
}
