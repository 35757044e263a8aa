/*
 * The names of a listing: gathered from several places, then sorted and there once each.
 *
 * Owns copies of the names. One thread's, or its user's lock's.
 */
#ifndef CTL_NAME_LIST_H
#define CTL_NAME_LIST_H

#include <stdbool.h>
#include <stddef.h>

struct name_list {
	char **names;
	size_t count, room;
	bool failed; /* one found no memory */
};

void name_list_release(struct name_list *l);
#define AUTO_NAME_LIST __attribute__((cleanup(name_list_release))) struct name_list

/* list: a name_list; void, to be called back by who lists. False: out of memory, which name_list_sort tells as well. */
bool name_list_add(const char *name, void *list);
/* 0, or -ENOMEM: one of those added is missing. */
int name_list_sort(struct name_list *l);
/* Of a sorted one. */
bool name_list_has(const struct name_list *l, const char *name);
/* Until cb returns false. */
void name_list_each(const struct name_list *l, bool (*cb)(const char *name, void *arg), void *arg);

#endif
