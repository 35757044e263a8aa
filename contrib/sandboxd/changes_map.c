/*
 * A hash table of watched directories: see changes_map.h.
 */
#include "changes_map.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "buf.h"
#include "cleanup.h"

enum { FIRST_SIZE = 64 };

static struct watched **place_of(const struct watch_map *m, int wd)
{
	return &m->buckets[(size_t)wd & (m->size - 1)];
}

void watch_map_free(struct watch_map *m)
{
	for (size_t i = 0; i < m->size; i++) {
		for (struct watched *w = m->buckets[i], *next; w; w = next) {
			next = w->next;
			free(w->path);
			free(w);
		}
	}
	free(m->buckets);
	*m = (struct watch_map){0};
}

struct watched *watch_map_find(const struct watch_map *m, int wd)
{
	struct watched *w = m->size ? *place_of(m, wd) : NULL;
	while (w && w->wd != wd)
		w = w->next;
	return w;
}

static int grow(struct watch_map *m)
{
	struct watch_map bigger = {.size = m->size ? m->size * 2 : FIRST_SIZE, .count = m->count};
	bigger.buckets = calloc(bigger.size, sizeof *bigger.buckets);
	if (!bigger.buckets)
		return -ENOMEM;
	for (size_t i = 0; i < m->size; i++) {
		for (struct watched *w = m->buckets[i], *next; w; w = next) {
			struct watched **to = place_of(&bigger, w->wd);
			next = w->next;
			w->next = *to;
			*to = w;
		}
	}
	free(m->buckets);
	*m = bigger;
	return 0;
}

int watch_map_set(struct watch_map *m, int wd, const char *path)
{
	AUTO_FREE char *copy = strdup(path);
	if (!copy)
		return -ENOMEM;
	struct watched *w = watch_map_find(m, wd);
	if (w) {
		free(w->path);
		w->path = steal(copy);
		return 0;
	}
	if (m->count >= m->size && grow(m) < 0)
		return -ENOMEM;
	w = malloc(sizeof *w);
	if (!w)
		return -ENOMEM;
	struct watched **at = place_of(m, wd);
	*w = (struct watched){.next = *at, .wd = wd, .path = steal(copy)};
	*at = w;
	m->count++;
	return 0;
}

void watch_map_remove(struct watch_map *m, int wd)
{
	if (!m->size)
		return;
	for (struct watched **at = place_of(m, wd); *at; at = &(*at)->next) {
		struct watched *w = *at;
		if (w->wd != wd)
			continue;
		*at = w->next;
		free(w->path);
		free(w);
		m->count--;
		return;
	}
}

static bool is_below(const char *path, const char *top)
{
	size_t n = strlen(top);
	return !n || (strncmp(path, top, n) == 0 && (!path[n] || path[n] == '/'));
}

int watch_map_move(struct watch_map *m, const char *old, const char *path)
{
	for (size_t i = 0; i < m->size; i++) {
		for (struct watched *w = m->buckets[i]; w; w = w->next) {
			if (!is_below(w->path, old))
				continue;
			AUTO_BUF to = BUF_INIT;
			buf_printf(&to, "%s%s", path, w->path + strlen(old));
			char *text = buf_steal(&to);
			if (!text)
				return -ENOMEM;
			free(w->path);
			w->path = text;
		}
	}
	return 0;
}

void watch_map_below(
	const struct watch_map *m, const char *path, void (*fn)(void *arg, int wd), void *arg)
{
	for (size_t i = 0; i < m->size; i++)
		for (struct watched *w = m->buckets[i]; w; w = w->next)
			if (is_below(w->path, path))
				fn(arg, w->wd);
}
