/* The table behind mime.h. */
#include "mime.h"

#include <string.h>
#include <strings.h>

#include "text.h"

static const struct {
	const char *extension, *type;
} table[] = {
	{"txt", "text/plain"},
	{"log", "text/plain"},
	{"md", "text/markdown"},
	{"csv", "text/csv"},
	{"html", "text/html"},
	{"htm", "text/html"},
	{"css", "text/css"},
	{"js", "text/javascript"},
	{"mjs", "text/javascript"},
	{"cjs", "text/javascript"},
	{"jsx", "text/javascript"},
	{"ts", "text/typescript"},
	{"tsx", "text/typescript"},
	{"json", "application/json"},
	{"xml", "application/xml"},
	{"yaml", "application/yaml"},
	{"yml", "application/yaml"},
	{"toml", "application/toml"},
	{"sh", "application/x-sh"},
	{"py", "text/x-python"},
	{"c", "text/x-c"},
	{"h", "text/x-c"},
	{"cpp", "text/x-c++"},
	{"rs", "text/x-rust"},
	{"go", "text/x-go"},
	{"java", "text/x-java"},
	{"rb", "text/x-ruby"},
	{"php", "text/x-php"},
	{"sql", "application/sql"},
	{"svg", "image/svg+xml"},
	{"png", "image/png"},
	{"jpg", "image/jpeg"},
	{"jpeg", "image/jpeg"},
	{"gif", "image/gif"},
	{"webp", "image/webp"},
	{"ico", "image/x-icon"},
	{"bmp", "image/bmp"},
	{"pdf", "application/pdf"},
	{"zip", "application/zip"},
	{"gz", "application/gzip"},
	{"tar", "application/x-tar"},
	{"tgz", "application/gzip"},
	{"xz", "application/x-xz"},
	{"zst", "application/zstd"},
	{"wasm", "application/wasm"},
	{"mp3", "audio/mpeg"},
	{"wav", "audio/wav"},
	{"mp4", "video/mp4"},
	{"webm", "video/webm"},
	{"woff", "font/woff"},
	{"woff2", "font/woff2"},
	{"ttf", "font/ttf"},
	{"bin", "application/octet-stream"},
	{"so", "application/octet-stream"},
	{"o", "application/octet-stream"},
	{"db", "application/octet-stream"},
};

const char *mime_by_name(const char *path)
{
	const char *slash = strrchr(path, '/');
	const char *dot = strrchr(slash ? slash : path, '.');
	for (size_t i = 0; dot && i < sizeof table / sizeof *table; i++)
		if (strcasecmp(table[i].extension, dot + 1) == 0)
			return table[i].type;
	return NULL;
}

const char *mime_by_content(const void *p, size_t n)
{
	if (!n)
		return "inode/x-empty";
	return text_is_text(p, n) ? "text/plain" : "application/octet-stream";
}

bool mime_is_text(const char *type)
{
	static const char *const others[] = {"application/json", "application/xml", "application/yaml",
		"application/toml", "application/x-sh", "application/sql", "image/svg+xml", "inode/x-empty",
		NULL};
	for (const char *const *t = others; *t; t++)
		if (strcmp(*t, type) == 0)
			return true;
	return strncmp(type, "text/", 5) == 0;
}
