/* links: ctl/words.c contrib/common/buf.c sandboxfs/call.c */
/*
 * ports/: names that are numbers, and the words of a token.
 */
#include "../../ctl/ports.c"
#include "fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char *text = fuzz_text(data, size);
	uint16_t number;
	if (port_number(text, &number))
		MUST(number >= PORT_MIN && number != PORT_SERVER);
	if (token_ok(text))
		MUST(strlen(text) <= TOKEN_MAX && *text);
	free(text);
	return 0;
}
