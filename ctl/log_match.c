/*
 * Patterns over logs: see log_match.h.
 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "log_match.h"

#include <errno.h>
#include <pcre2.h>
#include <stdlib.h>
#include <string.h>

#include "cleanup.h"

/* A step of the interpreter is some ten nanoseconds: a line is given up after about a second. */
enum { MATCH_STEPS = 10000000, MATCH_HEAP_KIB = 32 << 10, JIT_STACK_MAX = 1 << 20 };

struct line {
	struct buf text;
	bool over; /* longer than is looked at: the rest of it is skipped */
};

struct log_match {
	pcre2_code *code;
	pcre2_match_data *data;
	pcre2_match_context *context;
	pcre2_jit_stack *stack;
	struct line lines[2];
};

void log_match_free(struct log_match *m)
{
	if (!m)
		return;
	buf_release(&m->lines[0].text);
	buf_release(&m->lines[1].text);
	pcre2_match_data_free(m->data);
	pcre2_match_context_free(m->context);
	pcre2_jit_stack_free(m->stack);
	pcre2_code_free(m->code);
	free(m);
}

static pcre2_code *compile(struct call *c, const char *pattern, size_t n)
{
	/* As JavaScript has it: \u0041, $ only at the very end, [] matches nothing, a group not set matches the empty text. */
	uint32_t options = PCRE2_UTF | PCRE2_MATCH_INVALID_UTF | PCRE2_ALT_BSUX | PCRE2_DOLLAR_ENDONLY |
					   PCRE2_ALLOW_EMPTY_CLASS | PCRE2_MATCH_UNSET_BACKREF |
					   PCRE2_NEVER_BACKSLASH_C;
	pcre2_compile_context *context = pcre2_compile_context_create(NULL);
	PCRE2_UCHAR text[200];
	PCRE2_SIZE at;
	int code;

	if (!context)
		return NULL;
	pcre2_set_compile_extra_options(context, PCRE2_EXTRA_ALT_BSUX);
	pcre2_code *compiled = pcre2_compile((PCRE2_SPTR)pattern, n, options, &code, &at, context);
	pcre2_compile_context_free(context);
	if (compiled)
		return compiled;
	if (pcre2_get_error_message(code, text, sizeof(text)) < 0)
		text[0] = 0;
	call_fault(c, EINVAL, NULL, "the pattern is wrong at byte %zu: %s", (size_t)at, (char *)text);
	return NULL;
}

int log_match_new(struct call *c, const char *pattern, size_t n, struct log_match **out)
{
	struct log_match *m = calloc(1, sizeof(*m));

	if (!m)
		return -ENOMEM;
	m->code = compile(c, pattern, n);
	if (!m->code) {
		free(m);
		return -EINVAL;
	}
	/* Where the system lets no code be made, the interpreter does it. */
	(void)pcre2_jit_compile(m->code, PCRE2_JIT_COMPLETE);
	m->data = pcre2_match_data_create_from_pattern(m->code, NULL);
	m->context = pcre2_match_context_create(NULL);
	m->stack = pcre2_jit_stack_create(32 << 10, JIT_STACK_MAX, NULL);
	if (!m->data || !m->context || !m->stack) {
		log_match_free(m);
		return -ENOMEM;
	}
	pcre2_set_match_limit(m->context, MATCH_STEPS);
	pcre2_set_heap_limit(m->context, MATCH_HEAP_KIB);
	pcre2_jit_stack_assign(m->context, NULL, m->stack);
	*out = m;
	return 0;
}

/* As log_match_feed, for one line without its newline. */
static int match_line(
	struct log_match *m, struct call *c, const char *line, size_t n, struct buf *answer)
{
	int count = pcre2_match(m->code, (PCRE2_SPTR)line, n, 0, 0, m->data, m->context);

	if (count == PCRE2_ERROR_JIT_STACKLIMIT)
		count = pcre2_match(m->code, (PCRE2_SPTR)line, n, 0, PCRE2_NO_JIT, m->data, m->context);
	if (count == PCRE2_ERROR_NOMATCH)
		return 0;
	if (count < 0) {
		PCRE2_UCHAR text[200];
		if (pcre2_get_error_message(count, text, sizeof(text)) < 0)
			text[0] = 0;
		return call_fault(c, EINVAL, NULL, "the pattern is too much for a line of %zu bytes: %s", n,
			(char *)text);
	}
	const PCRE2_SIZE *at = pcre2_get_ovector_pointer(m->data);
	uint32_t groups = pcre2_get_ovector_count(m->data);
	buf_add(answer, line, n);
	buf_char(answer, '\n');
	for (uint32_t i = 1; i < groups; i++) {
		/* Of a group that took no part, and of one that \K or a look-ahead turned round, there is nothing to show. */
		if ((int)i < count && at[2 * i] != PCRE2_UNSET && at[2 * i] <= at[2 * i + 1])
			buf_add(answer, line + at[2 * i], at[2 * i + 1] - at[2 * i]);
		buf_char(answer, '\n');
	}
	int err = buf_error(answer);
	return err ? err : 1;
}

static int line_ended(struct log_match *m, struct call *c, struct line *l, struct buf *answer)
{
	int got = buf_error(&l->text);

	if (!got)
		got = match_line(m, c, l->text.data ? l->text.data : "", l->text.size, answer);
	buf_clear(&l->text);
	l->over = false;
	return got;
}

static void line_add(struct line *l, const char *p, size_t n)
{
	size_t room = LOG_MATCH_LINE_MAX - l->text.size;

	if (l->over)
		return;
	l->over = n > room;
	buf_add(&l->text, p, n < room ? n : room);
}

int log_match_feed(struct log_match *m, struct call *c, unsigned stream, const char *p, size_t n,
	struct buf *answer)
{
	struct line *l = &m->lines[stream == 2];

	while (n > 0) {
		const char *newline = memchr(p, '\n', n);
		size_t part = newline ? (size_t)(newline - p) : n;
		int got;

		if (!newline) {
			line_add(l, p, part);
			return buf_error(&l->text);
		}
		if (l->text.size == 0 && part <= LOG_MATCH_LINE_MAX) {
			got = match_line(m, c, p, part, answer); /* whole, where it is */
		} else {
			line_add(l, p, part);
			got = line_ended(m, c, l, answer);
		}
		if (got)
			return got;
		p += part + 1;
		n -= part + 1;
	}
	return 0;
}

int log_match_end(struct log_match *m, struct call *c, struct buf *answer)
{
	int got = 0;

	for (int i = 0; i < 2 && got == 0; i++) {
		if (m->lines[i].text.size > 0)
			got = line_ended(m, c, &m->lines[i], answer);
	}
	return got;
}
