// Package hostile x
package hostile
