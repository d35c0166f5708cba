module github.com/postern-fw/postern

go 1.26.0
