/* Lists of names: see name_list.h. */
#include "name_list.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

void name_list_release(struct name_list *l)
{
	for (size_t i = 0; i < l->count; i++)
		free(l->names[i]);
	free(l->names);
}

bool name_list_add(const char *name, void *list)
{
	struct name_list *l = list;
	if (l->count == l->room) {
		size_t room = l->room ? l->room * 2 : 32;
		char **more = reallocarray(l->names, room, sizeof *more);
		l->failed = l->failed || !more;
		if (!more)
			return false;
		l->names = more;
		l->room = room;
	}
	char *copy = strdup(name);
	l->failed = l->failed || !copy;
	if (copy)
		l->names[l->count++] = copy;
	return copy;
}

static int compare(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

int name_list_sort(struct name_list *l)
{
	size_t kept = 0;
	if (l->count)
		qsort(l->names, l->count, sizeof *l->names, compare);
	for (size_t i = 0; i < l->count; i++) {
		if (kept && strcmp(l->names[kept - 1], l->names[i]) == 0)
			free(l->names[i]);
		else
			l->names[kept++] = l->names[i];
	}
	l->count = kept;
	return l->failed ? -ENOMEM : 0;
}

bool name_list_has(const struct name_list *l, const char *name)
{
	return l->count && bsearch(&name, l->names, l->count, sizeof *l->names, compare);
}

void name_list_each(const struct name_list *l, bool (*cb)(const char *name, void *arg), void *arg)
{
	for (size_t i = 0; i < l->count && cb(l->names[i], arg); i++)
		;
}
